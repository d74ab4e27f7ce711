"""The one finish routine, as `ending.lua`: every terminal state is written here. Knows not who may ask for it."""

from dataclasses import replace

from headrace.contract.errors import ErrorInfo
from headrace.contract.events import Cancelled, Completed, Event, Expired, Failed
from headrace.contract.generation import Usage
from headrace.contract.job import Job, State
from headrace.queue import rules
from headrace.queue.plain.queueing import let_go, refund
from headrace.queue.plain.tables import Entry, Tables


def end_job(
    tables: Tables,
    entry: Entry,
    state: State,
    error: ErrorInfo | None = None,
    *,
    cached_tokens: int = 0,
    keep_lease: bool = False,
) -> None:
    """A worker's own finish keeps epoch and lease on the record, so that saying it again answers OK."""
    entry.until = entry.passed_at = None
    refund(tables, entry.job)
    if not keep_lease:
        let_go(entry)
    job, tokens = entry.job, sum(entry.job.next_offset)
    usage = Usage(len(job.request.prompt_ids), tokens, cached_tokens)
    ref = f"memory:{job.id}" if entry.result is not None else ""
    entry.job = replace(job, state=state, ended_at=tables.clock(), error=error, usage=usage, result_ref=ref)
    if state is State.SUCCEEDED:
        _move_average(tables, job)
    tables.write(entry, _last_event(job.seq + 1, state, usage, error))


def _move_average(tables: Tables, job: Job) -> None:
    """A job that was to generate nothing says nothing about those that are."""
    if job.request.max_tokens:
        key = (job.lane, job.tenant)
        average = tables.averages.get(key, rules.FIRST_AVERAGE)
        tables.averages[key] = rules.moved(average, sum(job.next_offset) / len(job.next_offset))


def _last_event(seq: int, state: State, usage: Usage, error: ErrorInfo | None) -> Event:
    if error is not None:
        return Failed(seq, error)
    if state is State.SUCCEEDED:
        return Completed(seq, usage)
    return Cancelled(seq) if state is State.CANCELLED else Expired(seq)
