-- finish: the worker's end of a job, refused while the journal lacks tokens of it (LEASED, RUNNING → ended).
-- ARGV 7.. job id, lease id, epoch, state, cached tokens, error JSON of the record, error code, error message,
-- result bytes, where the result lies if not here ('' for here), then for each choice of a success: its length.

local job = load_job(ARGV[7])
local state = ARGV[10]
local refused, mine = fence(job, ARGV[8], ARGV[9])
if refused then
  if mine then return { 'OK', job.state } end
  return refused
end

if state == 'SUCCEEDED' then
  -- A store that lost its tail must be healed first: what is not in the journal was never shown.
  for i, have in ipairs(job.offsets) do
    if job.finished[i] == '' or tonumber(ARGV[16 + i]) ~= have then return { 'GAP', i - 1, have } end
  end
  end_job(job, state, { cached = ARGV[11], result = ARGV[15], ref = ARGV[16] }, true)
else
  local _, inner = error_json(ARGV[13], ARGV[14])
  end_job(job, state, { cached = ARGV[11], error = ARGV[12], inner = inner }, true)
end
return { 'OK', state }
