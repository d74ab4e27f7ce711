"""Into a lane and out of it, as `queueing.lua`: claim estimate, fair places, letting go of a lease. Knows no ends."""

from dataclasses import replace

from headrace.contract.job import Job, State
from headrace.queue import rules
from headrace.queue.plain.tables import Entry, Tables


def enqueue(tables: Tables, entry: Entry) -> None:
    average = tables.averages.get((entry.job.lane, entry.job.tenant), rules.FIRST_AVERAGE)
    kv_tokens = rules.estimate(entry.job, average)
    place = entry.job.place or _next_place(tables, entry.job, kv_tokens)
    entry.job = replace(entry.job, state=State.QUEUED, queued_at=tables.clock(), kv_tokens=kv_tokens, place=place)
    entry.until = entry.passed_at = None


def _next_place(tables: Tables, job: Job, kv_tokens: int) -> int:
    """Start-time fair queueing: where the tenant's last job ends, and never before the turn."""
    lane = job.lane, job.job_class
    turn = tables.turns.setdefault(lane, tables.clock())
    place = max(turn, tables.next_places.get((*lane, job.tenant), 0))
    tables.next_places[*lane, job.tenant] = place + kv_tokens
    return place


def give_turn(tables: Tables, job: Job, now: int) -> None:
    """The turn comes to a job that is taken, unless its deadline let it go before others."""
    if job.deadline_at is None or job.deadline_at > now + tables.timing.urgent_ms:
        lane = job.lane, job.job_class
        tables.turns[lane] = max(tables.turns[lane], job.place)


def refund(tables: Tables, job: Job) -> None:
    """A job that ends without ever having been taken has cost its tenant nothing."""
    if job.state is State.QUEUED and job.attempt == 0:
        tables.next_places[job.lane, job.job_class, job.tenant] -= job.kv_tokens


def let_go(entry: Entry) -> None:
    """Takes the lease away from whoever has it: from here on the old epoch can write nothing."""
    entry.job = replace(entry.job, epoch=entry.job.epoch + 1, lease_id="", owner="")
    entry.until = None


def put_back(tables: Tables, entry: Entry) -> None:
    let_go(entry)
    enqueue(tables, entry)
