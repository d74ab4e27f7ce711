-- Into a lane and out of it: the claim estimate, the ready sets, and letting go of a lease. Knows no ends.

local function lane_key(job) return 'hr:lane:' .. job.lane .. ':' .. job.class end

-- Sorted set: where each tenant's next job will stand, and under TURN the place of the job that was taken last.
local TURN, FAIR_TTL_MS = '', 7 * 24 * 3600 * 1000
local function fair_key(lane, class) return 'hr:fair:' .. lane .. ':' .. class end

-- As Lua writes numbers, a large one would lose its last digits.
local function whole(number) return string.format('%.0f', number) end

local function average_key(job) return 'hr:avg:' .. job.lane .. ':' .. job.tenant end

-- Rule 11: prompt + journaled + min(remaining, moving average of the lane's and tenant's output).
local function estimate(job)
  local average = tonumber(redis.call('GET', average_key(job)) or 256)
  local tokens = job.prompt_tokens
  for _, offset in ipairs(job.offsets) do
    tokens = tokens + offset + math.min(math.max(job.max_tokens - offset, 0), average)
  end
  return math.ceil(tokens)
end

-- Start-time fair queueing (ADR 15): a tenant's next job stands where its last one ends, counted in tokens, and never
-- before the job that was taken last. A job that comes back keeps its place.
local function enqueue(job)
  local tokens = estimate(job)
  if job.place == 0 then
    local key = fair_key(job.lane, job.class)
    local turn = tonumber(redis.call('ZSCORE', key, TURN) or now)
    job.place = math.max(turn, tonumber(redis.call('ZSCORE', key, job.tenant) or 0))
    redis.call('ZADD', key, whole(turn), TURN, whole(job.place + tokens), job.tenant)
    redis.call('PEXPIRE', key, FAIR_TTL_MS)
  end
  redis.call('HSET', job.key, 'state', 'QUEUED', 'queued_at', now, 'kv_tokens', tokens, 'place', whole(job.place))
  redis.call('HDEL', job.key, 'passed_at')
  redis.call('ZREM', 'hr:accepted', job.id)
  redis.call('ZADD', lane_key(job), whole(job.place), job.id)
  if job.deadline_at > 0 then redis.call('ZADD', lane_key(job) .. ':due', job.deadline_at, job.id) end
  redis.call('PUBLISH', 'hr:wake:' .. job.lane, job.class)
end

local function dequeue(job)
  redis.call('ZREM', lane_key(job), job.id)
  if job.deadline_at > 0 then redis.call('ZREM', lane_key(job) .. ':due', job.id) end
end

-- The turn comes to a job that is taken. Tenants who stand before it owe nothing, and are forgotten.
local function give_turn(job)
  local key = fair_key(job.lane, job.class)
  redis.call('ZADD', key, 'GT', whole(job.place), TURN)
  redis.call('ZREMRANGEBYSCORE', key, '-inf', '(' .. whole(job.place))
  redis.call('PEXPIRE', key, FAIR_TTL_MS)
end

-- A job that ends without ever having been taken has cost its tenant nothing.
local function refund(job)
  local key = fair_key(job.lane, job.class)
  if job.state == 'QUEUED' and job.attempt == 0 and redis.call('ZSCORE', key, job.tenant) then
    redis.call('ZINCRBY', key, -job.kv_tokens, job.tenant)
  end
end

-- Takes the lease away from whoever has it: from here on the old epoch can write nothing.
local function let_go(job)
  redis.call('ZREM', 'hr:leases', job.id)
  if job.owner ~= '' then redis.call('SREM', 'hr:held:' .. job.owner, job.id) end
  redis.call('HSET', job.key, 'epoch', job.epoch + 1, 'lease_id', '', 'owner', '')
end
