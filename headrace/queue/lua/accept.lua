-- accept: record, idempotency key and first event in one step; held back, the job is queued by the next accept of it.
-- Knows no tokens.
-- ARGV 7.. job id, body hash, milliseconds until the deadline ('' for none), whether to hold it back (1 or 0), then the
-- record's fields and values.

local id, body_hash, deadline_in, hold = ARGV[7], ARGV[8], ARGV[9], ARGV[10] == '1'
local record = {}
for i = 11, #ARGV, 2 do record[ARGV[i]] = ARGV[i + 1] end

local idem_key = record.idem_key or ''
local idem = idem_name(record.tenant, idem_key)
if idem_key ~= '' then
  local known = redis.call('HMGET', idem, 'body_hash', 'job')
  if known[2] and known[2] ~= id then return { known[1] == body_hash and 'EXISTS' or 'CONFLICT', known[2] } end
end
-- A dead letter has one redrive, and remembers it for as long as it is parked: the key may have gone before.
local letter = (record.redrive_of or '') ~= '' and 'hr:job:' .. record.redrive_of
local redriven_as = letter and redis.call('HGET', letter, 'redriven_as') or ''
if redriven_as ~= '' and redriven_as ~= id then return { 'EXISTS', redriven_as } end

local job = load_job(id)
if job then
  if job.state == 'ACCEPTED' and not hold then enqueue(job) end
  return { 'OK', id, job.created_at }
end

redis.call('HSET', 'hr:job:' .. id, unpack(ARGV, 11))
redis.call('HSET', 'hr:job:' .. id, 'state', 'ACCEPTED', 'created_at', now, 'seq', 1)
redis.call('ZADD', 'hr:jobs:' .. record.tenant, now, id)
if idem_key ~= '' then redis.call('HSET', idem, 'body_hash', body_hash, 'job', id) end
if letter and redis.call('EXISTS', letter) == 1 then redis.call('HSET', letter, 'redriven_as', id) end
if deadline_in ~= '' then
  redis.call('HSET', 'hr:job:' .. id, 'deadline_at', now + deadline_in)
  redis.call('ZADD', 'hr:deadlines', now + deadline_in, id)
end
write_event(id, 1, 'accepted', '"job":"' .. id .. '","at":' .. string.format('%d', now))
if hold then
  redis.call('ZADD', 'hr:accepted', now, id)
else
  enqueue(load_job(id))
end
return { 'OK', id, now }
