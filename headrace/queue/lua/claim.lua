-- claim: ready jobs that fit this worker, by class, urgency and fair share (rules 8, 10, 11). Knows no tokens.
-- ARGV 7.. worker, revision, digest, nonce, free budget, whole capacity, jobs wanted, jobs held, schema, lanes...

local PAGE, MOST_EXAMINED, MOST_PASSED_OVER, ALONE_FROM = 32, 256, 16, 2
local CLASSES = { 'interactive', 'standard', 'batch', 'background' }

local worker, revision, digest, nonce = ARGV[7], ARGV[8], ARGV[9], ARGV[10]
local budget, capacity, wanted, held = tonumber(ARGV[11]), tonumber(ARGV[12]), tonumber(ARGV[13]), tonumber(ARGV[14])
local schema = tonumber(ARGV[15])
local lanes = { unpack(ARGV, 16) }
local claimed, examined, passed_over, seen, stop = {}, 0, 0, {}, false

local function records(ids)
  local found = {}
  for i, id in ipairs(ids) do found[i] = redis.call('HGETALL', 'hr:job:' .. id) end
  return found
end

-- What the server thinks this worker holds already. A lease that bears our nonce comes from this very call, whose
-- answer was lost; a job that runs alone lets nothing beside it.
local repeated, alone = {}, false
for _, id in ipairs(redis.call('SMEMBERS', 'hr:held:' .. worker)) do
  local job = redis.call('HMGET', 'hr:job:' .. id, 'lease_id', 'deaths')
  if job[1] and string.sub(job[1], 1, #nonce) == nonce then
    repeated[#repeated + 1] = id
  elseif tonumber(job[2] or 0) >= ALONE_FROM then
    alone = true
  end
  held = math.max(held, 1)
end
if #repeated > 0 then return records(repeated) end
if alone then return {} end

local cards = {}
local function revision_gone(job)
  if cards[job.lane] == nil then
    local decoded, card = pcall(cjson.decode, redis.call('GET', 'hr:card:' .. job.lane) or '{}')
    cards[job.lane] = decoded and type(card) == 'table' and card.revision or false
  end
  return cards[job.lane] and cards[job.lane] ~= job.revision
end

local function take(job, in_turn)
  dequeue(job)
  if in_turn then give_turn(job) end
  claimed[#claimed + 1] = job.id
  budget = budget - job.kv_tokens
  redis.call('HSET', job.key, 'state', 'LEASED', 'epoch', job.epoch + 1, 'owner', worker, 'digest', digest,
    'lease_id', string.format('%s-%03d', nonce, #claimed), 'attempt', job.attempt + 1, 'leased_at', now)
  redis.call('HDEL', job.key, 'passed_at')
  redis.call('ZADD', 'hr:leases', now + lease_ms, job.id)
  redis.call('SADD', 'hr:held:' .. worker, job.id)
end

-- A full worker on a deep lane asks often: it looks for something smaller among the next few, not through the lane.
local function pass_over(job)
  passed_over = passed_over + 1
  stop = passed_over >= MOST_PASSED_OVER
  if job.passed_at == 0 or job.passed_at > now then
    redis.call('HSET', job.key, 'passed_at', now)
  elseif now - job.passed_at >= starvation_ms then
    stop = true
  end
end

-- Decides on one ready job; answers whether it stays in its lane.
local function consider(job, in_turn)
  if job.deadline_at > 0 and job.deadline_at <= now then
    end_job(job, 'EXPIRED', {})
    return false
  end
  if job.revision ~= revision then
    if not revision_gone(job) then return true end
    local err, inner = error_json('revision_gone', 'The revision of the model that this job was made for is gone.')
    end_job(job, 'FAILED', { error = err, inner = inner })
    return false
  end
  if job.needs > schema then return true end
  if job.digest_wanted ~= '' and job.digest_wanted ~= digest then return true end
  if job.prompt_tokens + job.max_tokens * #job.offsets > capacity then return true end
  local runs_alone = job.deaths >= ALONE_FROM
  if job.kv_tokens > budget or (runs_alone and held + #claimed > 0) then
    pass_over(job)
    return true
  end
  take(job, in_turn)
  stop = runs_alone or #claimed >= wanted
  return false
end

-- Places of two lanes cannot be compared, but how far each is past its lane's turn.
local function turn_of(lane, class, suffix)
  if suffix ~= '' or #lanes == 1 then return 0 end
  return tonumber(redis.call('ZSCORE', fair_key(lane, class), TURN) or 0)
end

-- One page of every lane, merged: {order, id, key}. `left` counts what stays in front of the next page.
local function page(class, suffix, highest, left)
  local found = {}
  for _, lane in ipairs(lanes) do
    local key = 'hr:lane:' .. lane .. ':' .. class .. suffix
    local raw = redis.call('ZRANGEBYSCORE', key, '-inf', highest, 'WITHSCORES', 'LIMIT', left[key] or 0, PAGE)
    local turn = #raw > 0 and turn_of(lane, class, suffix)
    for i = 1, #raw, 2 do found[#found + 1] = { tonumber(raw[i + 1]) - turn, raw[i], key } end
  end
  table.sort(found, function(a, b) return a[1] < b[1] or (a[1] == b[1] and a[2] < b[2]) end)
  return found
end

local function sweep(class, suffix, highest)
  local left = {}
  repeat
    local found = page(class, suffix, highest, left)
    for _, entry in ipairs(found) do
      if stop then return end
      local id, key = entry[2], entry[3]
      local stays = seen[id]
      if not stays then
        examined = examined + 1
        stop = examined >= MOST_EXAMINED
        local job = load_job(id)
        stays = job and consider(job, suffix == '')
        if not job then redis.call('ZREM', key, id) end
        seen[id] = stays
      end
      if stays then left[key] = (left[key] or 0) + 1 end
    end
  until #found == 0
end

for _, class in ipairs(CLASSES) do
  if not stop and wanted > 0 then sweep(class, ':due', now + urgent_ms) end
  if not stop and wanted > 0 then sweep(class, '', '+inf') end
end
return records(claimed)
