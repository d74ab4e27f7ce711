-- Into a lane and out of it: the claim estimate, the ready sets, and letting go of a lease. Knows no ends.

local function lane_key(job) return 'hr:lane:' .. job.lane .. ':' .. job.class end

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

-- The score is the time of birth, so that a job that comes back keeps its place.
local function enqueue(job)
  redis.call('HSET', job.key, 'state', 'QUEUED', 'queued_at', now, 'kv_tokens', estimate(job))
  redis.call('HDEL', job.key, 'passed_at')
  redis.call('ZADD', lane_key(job), job.created_at, job.id)
  if job.deadline_at > 0 then redis.call('ZADD', lane_key(job) .. ':due', job.deadline_at, job.id) end
  redis.call('PUBLISH', 'hr:wake:' .. job.lane, job.class)
end

local function dequeue(job)
  redis.call('ZREM', lane_key(job), job.id)
  if job.deadline_at > 0 then redis.call('ZREM', lane_key(job) .. ':due', job.id) end
end

-- Takes the lease away from whoever has it: from here on the old epoch can write nothing.
local function let_go(job)
  redis.call('ZREM', 'hr:leases', job.id)
  if job.owner ~= '' then redis.call('SREM', 'hr:held:' .. job.owner, job.id) end
  redis.call('HSET', job.key, 'epoch', job.epoch + 1, 'lease_id', '', 'owner', '')
end
