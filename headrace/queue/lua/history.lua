-- What went wrong with a job's attempts, on its record: the last twenty. Knows no verb.

local MOST_PAST = 20

-- `message` is short and whole: what is cut here could end within a character.
local function remember(job, code, message)
  local history = cjson.decode(redis.call('HGET', job.key, 'history') or '[]')
  history[#history + 1] =
    { attempt = job.attempt, worker = job.owner, code = code, message = message, at = now, offset = journaled(job) }
  while #history > MOST_PAST do table.remove(history, 1) end
  redis.call('HSET', job.key, 'history', cjson.encode(history))
end
