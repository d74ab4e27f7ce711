-- cancel: ends a job that lives, whoever holds it (→ CANCELLED). Carries no lease.
-- ARGV 7 job id.

local job = load_job(ARGV[7])
if not job then return { 'MISSING' } end
if ENDED[job.state] then return { 'TERMINAL', job.state } end
end_job(job, 'CANCELLED', {})
tell_owner(job)
return { 'OK', 'CANCELLED' }
