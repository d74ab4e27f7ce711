-- retry: a counted error; the job waits, or after three falls back or is dead (LEASED, RUNNING → RETRY_WAIT | QUEUED |
-- DEAD). Knows no causes.
-- ARGV 7.. job id, lease id, epoch, wait in milliseconds, error code, error message, error JSON of the record,
-- the message in short.

local MOST_RETRIES = 3
local job = load_job(ARGV[7])
local refused = fence(job, ARGV[8], ARGV[9])
if refused then return refused end

local wait, code, message = ARGV[10], ARGV[11], ARGV[12]
remember(job, code, ARGV[14])
local exhausted = job.retries >= MOST_RETRIES
if exhausted and not may_fall_back(job) then
  local err, inner = error_json('retries_exhausted',
    'Gave up after ' .. MOST_RETRIES .. ' retries; the last error was ' .. code .. ': ' .. message)
  end_job(job, 'DEAD', { error = err, inner = inner })
  return { 'OK', 'DEAD' }
end
local _, inner = error_json(code, message)
let_go(job)
redis.call('HSET', job.key, 'seq', job.seq + 1, 'error', ARGV[13])
if exhausted then
  write_event(job.id, job.seq + 1, 'retrying', '"in_ms":0,' .. inner)
  fall_back(job)
  return { 'OK', 'QUEUED' }
end
redis.call('HSET', job.key, 'state', 'RETRY_WAIT', 'retries', job.retries + 1)
redis.call('ZADD', 'hr:delay', now + wait, job.id)
write_event(job.id, job.seq + 1, 'retrying', '"in_ms":' .. wait .. ',' .. inner)
return { 'OK', 'RETRY_WAIT' }
