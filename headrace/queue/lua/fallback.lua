-- Falling back: a job that could not begin with its own model begins with another (rule 9). Knows no causes.

-- Whether there is a model to fall back to. Its request was frozen at submit, beside the first one. After a token of the
-- first model nobody else may go on.
local function may_fall_back(job)
  return journaled(job) == 0 and redis.call('HEXISTS', job.key, 'fallback') == 1
end

-- The job's lease must be gone. Its retries begin anew, and the next attempt is a `started`.
local function fall_back(job)
  local stored = redis.call('HMGET', job.key, 'fallback', 'fallback_prompt', 'model')
  local other = cjson.decode(stored[1])
  redis.call('HDEL', job.key, 'fallback', 'fallback_prompt', 'started_digest', 'digest', 'digests', 'prompt_ref',
    'deaths')
  redis.call('HSET', job.key, 'model', other.model, 'lane', other.lane, 'revision', other.revision,
    'request', other.request, 'prompt_ids', stored[2], 'prompt_tokens', other.prompt_tokens,
    'max_tokens', other.max_tokens, 'retries', 0, 'fallback_of', stored[3])
  if other.prompt_ref ~= '' then redis.call('HSET', job.key, 'prompt_ref', other.prompt_ref) end
  job.lane, job.prompt_tokens, job.max_tokens = other.lane, other.prompt_tokens, other.max_tokens
  job.place = 0
  enqueue(job)
end
