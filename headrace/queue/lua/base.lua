-- Ground of every script: the server's time, the timing of the protocol, the record and the fence. Knows no verb.
--
-- ARGV 1-6 are the same everywhere; a verb's own arguments begin at 7. Keys are made here from job ids, so a script
-- needs one Redis and not a cluster: a job moves between sets that belong to lanes and workers.

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000) + ARGV[1]
local lease_ms, journal_ttl_ms, result_ttl_ms = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local starvation_ms, urgent_ms = tonumber(ARGV[5]), tonumber(ARGV[6])

local ENDED = { SUCCEEDED = true, FAILED = true, CANCELLED = true, EXPIRED = true, DEAD = true }
local HELD = { LEASED = true, RUNNING = true }

local TEXTS = {
  'state', 'lease_id', 'owner', 'lane', 'class', 'tenant', 'revision', 'idem_key', 'next_offset', 'finished',
  'digest_wanted', 'ledger_receipt',
}
local NUMBERS = {
  'epoch', 'attempt', 'retries', 'deaths', 'deaths_total', 'death_offset', 'seq', 'kv_tokens', 'prompt_tokens',
  'max_tokens', 'created_at', 'deadline_at', 'passed_at', 'needs', 'place',
}

local FIELDS = { unpack(TEXTS) }
for _, name in ipairs(NUMBERS) do FIELDS[#FIELDS + 1] = name end

-- What scheduling needs of a record, or nil when there is none. `offsets` and `finished` have one item for each choice.
local function load_job(id)
  local found = redis.call('HMGET', 'hr:job:' .. id, unpack(FIELDS))
  if not found[1] then return nil end
  local job = { id = id, key = 'hr:job:' .. id }
  for i, name in ipairs(TEXTS) do job[name] = found[i] or '' end
  for i, name in ipairs(NUMBERS) do job[name] = tonumber(found[#TEXTS + i] or 0) end
  job.offsets, job.finished = cjson.decode(job.next_offset), cjson.decode(job.finished)
  return job
end

-- As `store.keys.idempotency`: a tenant's name may have colons, and a key may, too.
local function idem_name(tenant, idem_key)
  return 'hr:idem:' .. tenant:gsub('%%', '%%25'):gsub(':', '%%3A') .. ':' .. idem_key
end

local function journaled(job)
  local total = 0
  for _, offset in ipairs(job.offsets) do total = total + offset end
  return total
end

-- Whether the journal has every choice to its end, so that only the end of the job itself is owed.
local function is_said(job)
  for _, reason in ipairs(job.finished) do
    if reason == '' then return false end
  end
  return true
end

-- nil when this lease may write, else the answer. The second value says whether the lease is the one on the record.
local function fence(job, lease_id, epoch)
  if not job then return { 'MISSING' }, false end
  local mine = lease_id ~= '' and job.lease_id == lease_id and job.epoch == tonumber(epoch)
  if ENDED[job.state] then return { 'TERMINAL', job.state }, mine end
  if not mine or not HELD[job.state] then return { 'LOST' }, false end
  return nil, true
end
