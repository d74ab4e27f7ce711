"""reap, as `reap.lua`: what nobody holds goes back, what is due moves on (rules 7, 8). Knows no other run of a store:
this one lives and ends with its process."""

from collections.abc import Callable
from dataclasses import replace

from headrace.contract.job import HELD, State
from headrace.queue import rules
from headrace.queue.base import ReapReply, ReapRequest
from headrace.queue.plain.ending import end_job
from headrace.queue.plain.queueing import enqueue, put_back
from headrace.queue.plain.tables import Entry, Tables


def reap(tables: Tables, request: ReapRequest) -> ReapReply:
    if request.worker:
        return _reap_worker(tables, request)
    return _reap_due(tables, _is_quiet(tables), request.limit)


def _reap_worker(tables: Tables, request: ReapRequest) -> ReapReply:
    requeued: list[str] = []
    dead: list[str] = []
    for entry in tables.held_by(request.worker)[: request.limit]:
        tables.remember(entry, rules.WORKER_DIED if request.died else rules.WORKER_STOPPED)
        died = request.died and _bury(tables, entry)
        if not died:
            put_back(tables, entry)
        (dead if died else requeued).append(entry.job.id)
    return ReapReply(tuple(requeued), (), tuple(dead))


def _reap_due(tables: Tables, quiet: bool, limit: int) -> ReapReply:
    requeued: list[str] = []
    expired: list[str] = []
    dead: list[str] = []
    for entry in _due(tables, lambda entry: None if entry.job.ended else entry.job.deadline_at, limit):
        end_job(tables, entry, State.EXPIRED)
        expired.append(entry.job.id)
    for entry in _due(tables, lambda entry: entry.until if entry.job.state is State.RETRY_WAIT else None, limit):
        enqueue(tables, entry)
        requeued.append(entry.job.id)
    if quiet:
        return ReapReply(tuple(requeued), tuple(expired), quiet=True)
    for entry in _due(tables, lambda entry: entry.until if entry.job.state in HELD else None, limit):
        beats = entry.job.owner in tables.beating
        tables.remember(entry, rules.LEASE_EXPIRED if beats else rules.WORKER_DIED)
        died = not beats and _bury(tables, entry)
        if not died:
            put_back(tables, entry)
        (dead if died else requeued).append(entry.job.id)
    return ReapReply(tuple(requeued), tuple(expired), tuple(dead))


def _due(tables: Tables, when: Callable[[Entry], int | None], limit: int) -> list[Entry]:
    now = tables.clock()
    due = [(at, entry.job.id, entry) for entry in tables.entries.values() if (at := when(entry)) is not None]
    return [entry for at, _, entry in sorted(due, key=lambda item: item[:2])[:limit] if at <= now]


def _bury(tables: Tables, entry: Entry) -> bool:
    """Count a death, unless the job is said to its end; True when it was one too many and the job has ended."""
    if entry.is_said:
        return False
    job = entry.job
    job = replace(job, deaths=job.deaths + 1, deaths_total=job.deaths_total + 1, death_offset=sum(job.next_offset))
    entry.job = job
    if job.deaths < rules.MOST_DEATHS and job.deaths_total < rules.MOST_DEATHS_IN_ALL:
        return False
    end_job(tables, entry, State.DEAD, rules.poison(job.deaths, job.deaths_total))
    return True


def _is_quiet(tables: Tables) -> bool:
    """A gap between ticks means that leases could not be renewed: wait a full term."""
    now, last = tables.clock(), tables.last_tick
    gap, longest = 0 if last is None else now - last, tables.timing.lease_ms * rules.QUIET_GAP
    if -gap > longest:
        _turn_back(tables, -gap)
    if last is None or abs(gap) > longest:
        tables.quiet_until = now + tables.timing.lease_ms
    tables.last_tick = now
    return now < tables.quiet_until


def _turn_back(tables: Tables, by: int) -> None:
    """The clock went back: what was to pass by the old one must not stay for as long. Deadlines stay as told."""
    for entry in tables.entries.values():
        entry.until = None if entry.until is None else entry.until - by
