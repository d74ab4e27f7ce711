-- append: deltas into the journal and onto the live channel, fenced and deduplicated (rules 1-4). Knows no text.
-- ARGV 7.. job id, lease id, epoch, then for each delta: choice, offset, packed ids, finish reason, packed log
-- probabilities ('' for none), live JSON.

local PROGRESS = 16
local id, lease_id, epoch = ARGV[7], ARGV[8], ARGV[9]
local key, stream, channel = 'hr:job:' .. id, 'hr:ev:' .. id, 'hr:live:' .. id

-- Read by hand and not by load_job: this script runs for every few tokens of the fleet.
local r = redis.call('HMGET', key, 'state', 'lease_id', 'epoch', 'seq', 'next_offset', 'finished', 'deaths',
  'death_offset', 'first_token_at')
if not r[1] then return { 'MISSING' } end
if ENDED[r[1]] then return { 'TERMINAL', r[1] } end
if r[2] ~= lease_id or r[3] ~= epoch or not HELD[r[1]] then return { 'LOST' } end

local seq, offsets, finished = tonumber(r[4]), cjson.decode(r[5]), cjson.decode(r[6])
local listeners, diverged, first_token, ended_here = -1, 0, false, false

local function contains(list, wanted)
  for _, item in ipairs(list) do
    if item == wanted then return true end
  end
  return false
end

local function begin()
  local a = redis.call('HMGET', key, 'attempt', 'owner', 'revision', 'digest', 'started_digest', 'digests')
  local who = '"attempt":' .. a[1] .. ',"worker":' .. cjson.encode(a[2])
  local digests = cjson.decode(a[6] or '[]')
  if not contains(digests, a[4]) then
    digests[#digests + 1] = a[4]
    redis.call('HSET', key, 'digests', cjson.encode(digests))
  end
  seq = seq + 1
  if a[5] then -- and of a record from before there were `digests`, the first of them
    listeners = write_event(id, seq, 'resumed',
      who .. ',"offsets":[' .. table.concat(offsets, ',') .. '],"exact":' .. tostring(#digests == 1 and a[5] == a[4]))
  else
    listeners = write_event(id, seq, 'started',
      who .. ',"revision":' .. cjson.encode(a[3]) .. ',"digest":' .. cjson.encode(a[4]))
    redis.call('HSET', key, 'started_digest', a[4])
  end
  redis.call('HSET', key, 'state', 'RUNNING', 'seq', seq)
end

-- Ids of one choice as the journal has them. Only read when a delta comes again.
local function journaled_ids(choice)
  local parts = {}
  for _, entry in ipairs(redis.call('XRANGE', stream, '-', '+')) do
    local fields = entry[2]
    if tonumber(string.match(fields[2], '^%d+')) == choice then parts[#parts + 1] = fields[4] end
  end
  return table.concat(parts)
end

local function same_as_before(choice, offset, ids, finish)
  local known = finished[choice + 1]
  if finish ~= '' and known ~= finish then return false end
  return string.sub(journaled_ids(choice), offset * 4 + 1, offset * 4 + #ids) == ids
end

-- Writes one delta, drops it as a repeat, or answers where the journal stands. A finish reason that comes with ids
-- which are already journaled without it is asked for again from there, so that it is not lost with the repeat.
local function add(choice, offset, ids, finish, logprobs, body)
  local index, stop = choice + 1, offset + #ids / 4
  local have, ended = offsets[index], finished[index] ~= ''
  if not have or (ended and stop > have) then
    diverged = 1
  elseif offset > have or (offset < have and stop > have) then
    return have
  elseif not ended and finish ~= '' and offset < have then
    return have
  elseif offset < have or ended then
    if not same_as_before(choice, offset, ids, finish) then diverged = 1 end
  elseif #ids > 0 or finish ~= '' then
    seq = seq + 1
    local event = choice .. ' ' .. offset .. (finish == '' and '' or ' ' .. finish)
    if logprobs == '' then
      redis.call('XADD', stream, seq .. '-0', 'event', event, 'ids', ids)
    else
      redis.call('XADD', stream, seq .. '-0', 'event', event, 'ids', ids, 'logprobs', logprobs)
    end
    listeners = redis.call('PUBLISH', channel, '{"seq":' .. seq .. ',' .. string.sub(body, 2))
    offsets[index] = stop
    if finish ~= '' then finished[index], ended_here = finish, true end
    first_token = first_token or #ids > 0
  end
end

local function save()
  local total = 0
  for _, offset in ipairs(offsets) do total = total + offset end
  redis.call('HSET', key, 'seq', seq, 'next_offset', '[' .. table.concat(offsets, ',') .. ']')
  if ended_here then redis.call('HSET', key, 'finished', cjson.encode(finished)) end
  if first_token and not r[9] then redis.call('HSET', key, 'first_token_at', now) end
  -- Past the place where it died, or said to its end: this job kills nobody any more.
  if tonumber(r[7] or 0) > 0 and (total >= r[8] + PROGRESS or is_said({ finished = finished })) then
    redis.call('HSET', key, 'deaths', 0)
  end
end

if r[1] == 'LEASED' then begin() end
local before, gap = seq, nil
for i = 10, #ARGV, 6 do
  local have = add(tonumber(ARGV[i]), tonumber(ARGV[i + 1]), ARGV[i + 2], ARGV[i + 3], ARGV[i + 4], ARGV[i + 5])
  if have then
    gap = { tonumber(ARGV[i]), have }
    break
  end
end
if seq > before then save() end
if listeners < 0 then listeners = redis.call('PUBSUB', 'NUMSUB', channel)[2] end
if gap then return { 'GAP', seq, listeners, gap[1], gap[2], diverged } end
return { 'OK', seq, listeners, 0, 0, diverged }
