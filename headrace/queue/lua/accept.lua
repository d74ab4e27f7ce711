-- accept: record, idempotency key and first event in one step. Knows no tokens.
-- ARGV 7.. job id, body hash, milliseconds until the deadline ('' for none), then the record's fields and values.

local id, body_hash, deadline_in = ARGV[7], ARGV[8], ARGV[9]
local record = {}
for i = 10, #ARGV, 2 do record[ARGV[i]] = ARGV[i + 1] end

local idem_key = record.idem_key or ''
local idem = 'hr:idem:' .. record.tenant .. ':' .. idem_key
if idem_key ~= '' then
  local known = redis.call('HMGET', idem, 'body_hash', 'job')
  if known[2] and known[2] ~= id then return { known[1] == body_hash and 'EXISTS' or 'CONFLICT', known[2] } end
end
if redis.call('EXISTS', 'hr:job:' .. id) == 1 then return { 'OK', id } end

redis.call('HSET', 'hr:job:' .. id, unpack(ARGV, 10))
redis.call('HSET', 'hr:job:' .. id, 'state', 'ACCEPTED', 'created_at', now, 'seq', 1)
redis.call('ZADD', 'hr:jobs:' .. record.tenant, now, id)
if idem_key ~= '' then redis.call('HSET', idem, 'body_hash', body_hash, 'job', id) end
if deadline_in ~= '' then
  redis.call('HSET', 'hr:job:' .. id, 'deadline_at', now + deadline_in)
  redis.call('ZADD', 'hr:deadlines', now + deadline_in, id)
end
write_event(id, 1, 'accepted', '"job":"' .. id .. '","at":' .. string.format('%d', now))
enqueue(load_job(id))
return { 'OK', id }
