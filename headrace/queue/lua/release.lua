-- release: a worker gives a job back, uncounted (LEASED, RUNNING → QUEUED). Knows no reasons.
-- ARGV 7.. job id, lease id, epoch.

local job = load_job(ARGV[7])
local refused = fence(job, ARGV[8], ARGV[9])
if refused then return refused end
let_go(job)
enqueue(job)
return { 'OK', 'QUEUED' }
