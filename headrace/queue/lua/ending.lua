-- The one finish routine (rule 5): every terminal state is written here. Knows nothing of who may ask for it.

local EVENTS = { SUCCEEDED = 'completed', FAILED = 'failed', DEAD = 'failed', CANCELLED = 'cancelled', EXPIRED = 'expired' }
local AVERAGE_TTL_MS = 7 * 24 * 3600 * 1000
local LEDGER_TTL_MS = 15 * 24 * 3600 * 1000

-- An error in the record's form (JSON with `retryable`) and, as second value, in the event's form.
local function error_json(code, message)
  local body = '"code":' .. cjson.encode(code) .. ',"message":' .. cjson.encode(message)
  return '{' .. body .. ',"retryable":false}', '"error":{' .. body .. '}'
end

-- A job that was to generate nothing says nothing about those that are.
local function move_average(job)
  if job.max_tokens == 0 then return end
  local key = average_key(job)
  local old = tonumber(redis.call('GET', key) or 256)
  redis.call('SET', key, string.format('%.2f', old + (journaled(job) / #job.offsets - old) / 8), 'PX', AVERAGE_TTL_MS)
end

-- A ledger's message may come long after its job has ended: the record waits for it, and a feeder that has marked the
-- job as done shortens this.
local function kept_ms(job) return job.ledger_receipt ~= '' and LEDGER_TTL_MS or result_ttl_ms end

local function set_retention(job, state)
  if job.idem_key ~= '' then
    redis.call('PEXPIRE', idem_name(job.tenant, job.idem_key), result_ttl_ms)
  end
  if state == 'DEAD' then
    -- Record and journal stay until somebody purges or redrives it.
    redis.call('ZADD', 'hr:dlq:' .. job.lane, now, job.id)
  else
    redis.call('PEXPIRE', 'hr:ev:' .. job.id, journal_ttl_ms)
    redis.call('PEXPIRE', job.key, kept_ms(job))
  end
end

-- `ending` may hold: error, inner (the event's members), cached (tokens), result (bytes), ref (of a result that lies elsewhere).
-- A worker's own finish keeps epoch and lease on the record (`keep`), so that saying it again answers OK.
local function end_job(job, state, ending, keep)
  dequeue(job)
  refund(job)
  redis.call('ZREM', 'hr:accepted', job.id)
  redis.call('ZREM', 'hr:delay', job.id)
  redis.call('ZREM', 'hr:deadlines', job.id)
  if keep then
    redis.call('ZREM', 'hr:leases', job.id)
    redis.call('SREM', 'hr:held:' .. job.owner, job.id)
  else
    let_go(job)
  end
  local usage = string.format('{"prompt_tokens":%d,"completion_tokens":%d,"cached_tokens":%d}',
    job.prompt_tokens, journaled(job), ending.cached or 0)
  local seq = job.seq + 1
  redis.call('HSET', job.key, 'state', state, 'ended_at', now, 'usage', usage, 'seq', seq)
  if ending.error then redis.call('HSET', job.key, 'error', ending.error) else redis.call('HDEL', job.key, 'error') end
  redis.call('HDEL', job.key, 'passed_at')
  if ending.ref and ending.ref ~= '' then
    redis.call('HSET', job.key, 'result_ref', ending.ref)
  elseif ending.result then
    redis.call('SET', 'hr:result:' .. job.id, ending.result, 'PX', kept_ms(job))
    redis.call('HSET', job.key, 'result_ref', 'hr:result:' .. job.id)
  end
  if state == 'SUCCEEDED' then move_average(job) end
  write_event(job.id, seq, EVENTS[state], state == 'SUCCEEDED' and '"usage":' .. usage or ending.inner or '')
  set_retention(job, state)
end

-- Tells the worker that holds a job, if any, that it need not go on.
local function tell_owner(job)
  if job.owner ~= '' then
    redis.call('PUBLISH', 'hr:ctl:' .. job.owner, '{"type":"cancel","job":"' .. job.id .. '"}')
  end
end
