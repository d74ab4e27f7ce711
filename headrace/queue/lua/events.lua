-- The journal's writing side: one event goes to the stream and, as JSON, to the live channel. Knows no states.
--
-- Every entry has the fields `event` and `ids`, so that Redis stores their names once for many entries; a delta with
-- log probabilities has them in a third, `logprobs`. A delta's `event` is "<choice> <offset>" or "<choice> <offset>
-- <finish reason>"; any other's is its JSON object without seq.

-- `members` are those of the event's JSON object after seq and type ('' for none).
local function write_event(id, seq, kind, members)
  local comma = members == '' and '' or ','
  local event = '"type":"' .. kind .. '"' .. comma .. members .. '}'
  redis.call('XADD', 'hr:ev:' .. id, seq .. '-0', 'event', '{' .. event, 'ids', '')
  return redis.call('PUBLISH', 'hr:live:' .. id, '{"seq":' .. seq .. ',' .. event)
end
