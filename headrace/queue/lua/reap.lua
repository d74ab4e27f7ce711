-- reap: what nobody holds goes back, what is due moves on (rules 7, 8). Anyone may run it at any time.
-- ARGV 7.. worker ('' for a tick), whether its engine died (1 or 0), most jobs of a kind.

local QUIET_GAP, MOST_DEATHS, MOST_DEATHS_IN_ALL = 0.5, 3, 10
local worker, died, limit = ARGV[7], ARGV[8] == '1', tonumber(ARGV[9])
local requeued, expired, dead = {}, {}, {}

local function due(key)
  local jobs = {}
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', key, '-inf', now, 'LIMIT', 0, limit)) do
    local job = load_job(id)
    if job then jobs[#jobs + 1] = job else redis.call('ZREM', key, id) end
  end
  return jobs
end

local function put_back(job)
  let_go(job)
  enqueue(job)
  requeued[#requeued + 1] = job.id
end

-- Counts a death; a job that kills without getting on is poison. One that is said to its end has no engine to kill.
local function bury_or_put_back(job)
  remember(job, 'worker_died', 'The worker died with the job in it.')
  if is_said(job) then return put_back(job) end
  local deaths, total = job.deaths + 1, job.deaths_total + 1
  redis.call('HSET', job.key, 'deaths', deaths, 'deaths_total', total, 'death_offset', journaled(job))
  if deaths < MOST_DEATHS and total < MOST_DEATHS_IN_ALL then return put_back(job) end
  local err, inner = error_json('poison', 'The job was given up: its workers died ' .. deaths
    .. ' times without progress, ' .. total .. ' times in all.')
  end_job(job, 'DEAD', { error = err, inner = inner })
  dead[#dead + 1] = job.id
end

local function reap_worker()
  for i, id in ipairs(redis.call('SMEMBERS', 'hr:held:' .. worker)) do
    if i > limit then break end
    local job = load_job(id)
    if not job then
      redis.call('SREM', 'hr:held:' .. worker, id)
    elseif died then
      bury_or_put_back(job)
    else
      remember(job, 'worker_stopped', 'The worker was stopped before it could give the job back.')
      put_back(job)
    end
  end
end

-- The server's clock went back, or one that is behind took over: what was to pass by the old clock must not stay for as
-- long as it went back. Deadlines stay as they were told.
local function turn_back(by)
  for _, key in ipairs({ 'hr:leases', 'hr:delay', 'hr:accepted' }) do
    for _, id in ipairs(redis.call('ZRANGE', key, 0, -1)) do redis.call('ZINCRBY', key, -by, id) end
  end
end

-- A gap between ticks, or another run of the server, means that leases could not be renewed: wait a full term.
local function is_quiet()
  local known = redis.call('HMGET', 'hr:reap', 'at', 'quiet_until', 'run_id')
  local run_id = string.match(redis.call('INFO', 'server'), 'run_id:(%x+)') or ''
  local quiet_until = tonumber(known[2] or 0)
  local gap = known[1] and now - known[1]
  if gap and -gap > lease_ms * QUIET_GAP then turn_back(-gap) end
  if not gap or math.abs(gap) > lease_ms * QUIET_GAP or known[3] ~= run_id then quiet_until = now + lease_ms end
  redis.call('HSET', 'hr:reap', 'at', now, 'quiet_until', quiet_until, 'run_id', run_id)
  return now < quiet_until
end

local function reap_due()
  for _, job in ipairs(due('hr:deadlines')) do
    end_job(job, 'EXPIRED', {})
    tell_owner(job)
    expired[#expired + 1] = job.id
  end
  for _, job in ipairs(due('hr:delay')) do
    redis.call('ZREM', 'hr:delay', job.id)
    enqueue(job)
    requeued[#requeued + 1] = job.id
  end
end

local function reap_leases()
  for _, job in ipairs(due('hr:leases')) do
    -- A worker that still beats has only been slow to renew.
    if redis.call('EXISTS', 'hr:w:' .. job.owner) == 1 then
      remember(job, 'lease_expired', 'The worker did not renew its lease in time.')
      put_back(job)
    else
      bury_or_put_back(job)
    end
  end
end

if worker ~= '' then
  reap_worker()
  return { requeued, expired, dead, 0 }
end
local quiet = is_quiet()
reap_due()
if not quiet then reap_leases() end
return { requeued, expired, dead, quiet and 1 or 0 }
