-- renew: prolongs leases and says what this worker holds (rule 6). Knows no tokens.
-- ARGV 7.. worker, then for each lease: job id, lease id, epoch.

local worker = ARGV[7]
local gone, held = {}, {}
for i = 8, #ARGV, 3 do
  local r = redis.call('HMGET', 'hr:job:' .. ARGV[i], 'state', 'lease_id', 'epoch')
  local job = r[1] and { state = r[1], lease_id = r[2], epoch = tonumber(r[3]) }
  if fence(job, ARGV[i + 1], ARGV[i + 2]) then
    gone[#gone + 1] = ARGV[i]
  else
    redis.call('ZADD', 'hr:leases', now + lease_ms, ARGV[i])
  end
end
for _, id in ipairs(redis.call('SMEMBERS', 'hr:held:' .. worker)) do
  local lease = redis.call('HMGET', 'hr:job:' .. id, 'lease_id', 'epoch')
  if lease[1] then held[#held + 1] = { id, lease[1], lease[2] } else redis.call('SREM', 'hr:held:' .. worker, id) end
end
return { 'OK', held, gone }
