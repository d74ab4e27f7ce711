"""retry, as `retry.lua` and `fallback.lua`: a counted error; the job waits, or after three falls back or is dead. Knows
no causes."""

from dataclasses import replace

from headrace.contract.errors import ErrorInfo
from headrace.contract.events import Retrying
from headrace.contract.job import Lease, State
from headrace.queue import rules
from headrace.queue.base import FinishReply, Outcome
from headrace.queue.plain.ending import end_job
from headrace.queue.plain.queueing import enqueue, let_go
from headrace.queue.plain.tables import Entry, Tables


def retry(tables: Tables, lease: Lease, in_ms: int, error: ErrorInfo) -> FinishReply:
    entry = tables.writable(lease)
    if isinstance(entry, FinishReply):
        return entry
    tables.remember(entry, error)
    if entry.job.retries >= rules.MOST_RETRIES:
        return _give_up(tables, entry, error)
    let_go(entry)
    entry.job = replace(entry.job, state=State.RETRY_WAIT, retries=entry.job.retries + 1, error=error)
    entry.until = tables.clock() + in_ms
    tables.write(entry, Retrying(entry.job.seq + 1, in_ms, error))
    return FinishReply(Outcome.OK, State.RETRY_WAIT)


def _give_up(tables: Tables, entry: Entry, error: ErrorInfo) -> FinishReply:
    """All retries have failed: the job begins with another model, if it may, or is dead."""
    if (other := rules.fallen_back(entry.job)) is None:
        end_job(tables, entry, State.DEAD, rules.retries_exhausted(error))
        return FinishReply(Outcome.OK, State.DEAD)
    let_go(entry)
    tables.write(entry, Retrying(entry.job.seq + 1, 0, error))
    job = entry.job
    entry.job = replace(other, seq=job.seq, epoch=job.epoch, lease_id="", owner="", error=error)
    entry.started_digest = None
    enqueue(tables, entry)
    return FinishReply(Outcome.OK, State.QUEUED)
