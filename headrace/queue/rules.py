"""The queue's decisions as plain functions: estimates, limits, what to do with a delta. Knows no store and no clock.

The Lua scripts take the same decisions; the contract suite holds both to them.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from enum import Enum, auto

from headrace.contract.errors import ErrorInfo
from headrace.contract.events import Delta, Event
from headrace.contract.job import Job, Past

FIRST_AVERAGE = 256.0
"""Tokens of output assumed of a lane that has not finished a job yet."""

AVERAGE_OVER = 8
"""Jobs over which the average moves."""

MOST_PAST = 20
"""Attempts that went wrong which a record remembers."""

MOST_MESSAGE = 500
"""Characters of an error's message that it remembers of each."""

MOST_RETRIES = 3
MOST_DEATHS = 3
MOST_DEATHS_IN_ALL = 10
MOST_PASSED_OVER = 16
"""Jobs that one claim passes over at most in looking for a smaller one."""

ALONE_FROM = 2
"""From this many deaths a job runs alone."""

PROGRESS = 16
"""Tokens past the last death that prove that the job was not its cause."""

QUIET_GAP = 0.5
"""A pause between two ticks longer than this part of a lease means that leases could not be renewed; a clock that went
back by more is another clock."""

REVISION_GONE = ErrorInfo("revision_gone", "The revision of the model that this job was made for is gone.")
UNSAID = ErrorInfo("internal_error", "The attempt ended without saying why.")


WORKER_DIED = ErrorInfo("worker_died", "The worker died with the job in it.")
WORKER_STOPPED = ErrorInfo("worker_stopped", "The worker was stopped before it could give the job back.")
LEASE_EXPIRED = ErrorInfo("lease_expired", "The worker did not renew its lease in time.")


class Verdict(Enum):
    """What becomes of a delta."""

    NEW = auto()
    REPEAT = auto()
    GAP = auto()
    DIVERGED = auto()
    """Not what the journal has; nothing is written."""


def retries_exhausted(last: ErrorInfo) -> ErrorInfo:
    return ErrorInfo(
        "retries_exhausted",
        f"Gave up after {MOST_RETRIES} retries; the last error was {last.code}: {last.message}",
    )


def poison(deaths: int, deaths_total: int) -> ErrorInfo:
    return ErrorInfo(
        "poison",
        f"The job was given up: its workers died {deaths} times without progress, {deaths_total} times in all.",
    )


def remember(job: Job, error: ErrorInfo, now: int) -> tuple[Past, ...]:
    """The job's history with one more attempt that went wrong, the oldest forgotten."""
    past = Past(job.attempt, job.owner, error.code, error.message[:MOST_MESSAGE], now, sum(job.next_offset))
    return (*job.history, past)[-MOST_PAST:]


def fallen_back(job: Job) -> Job | None:
    """The job as it begins with its other model; None if it has none, or has tokens of the first (rule 9)."""
    other = job.fallback
    if other is None or sum(job.next_offset) > 0:
        return None
    return replace(
        job,
        model=other.model,
        lane=other.lane,
        revision=other.revision,
        request=other.request,
        prompt_ref=other.prompt_ref,
        fallback=None,
        fallback_of=job.model,
        digest="",
        digests=(),
        retries=0,
        deaths=0,
        place=0,
    )


def estimate(job: Job, average: float) -> int:
    """KV tokens that a job is thought to need (rule 11): prompt + journaled + min(remaining, average)."""
    tokens: float = len(job.request.prompt_ids)
    for offset in job.next_offset:
        tokens += offset + min(max(job.request.max_tokens - offset, 0), average)
    return math.ceil(tokens)


def largest(job: Job) -> int:
    """KV tokens that a job needs at most."""
    return len(job.request.prompt_ids) + job.request.max_tokens * len(job.next_offset)


def moved(average: float, tokens: float) -> float:
    return round(average + (tokens - average) / AVERAGE_OVER, 2)


def runs_alone(job: Job) -> bool:
    """Whether a job has killed often enough that nothing may run beside it."""
    return job.deaths >= ALONE_FROM


def judge(delta: Delta, offsets: Sequence[int], finished: Sequence[str], journal: Sequence[Event]) -> Verdict:
    """What to do with a delta, given each choice's next offset and finish reason ('' for none) and the journal.

    A finish reason that comes with ids which are already journaled without it is a GAP: it is asked for again from the
    end, so that it is not lost with the repeat.
    """
    if delta.choice >= len(offsets):
        return Verdict.DIVERGED
    have, end = offsets[delta.choice], delta.offset + len(delta.token_ids)
    reason, known = delta.finish_reason or "", finished[delta.choice]
    if known and end > have:
        return Verdict.DIVERGED
    if delta.offset > have or delta.offset < have < end or (reason and not known and delta.offset < have):
        return Verdict.GAP
    if known or delta.offset < have:
        ids = [
            i for event in journal if isinstance(event, Delta) and event.choice == delta.choice for i in event.token_ids
        ]
        same = tuple(ids[delta.offset : end]) == delta.token_ids and reason in ("", known)
        return Verdict.REPEAT if same else Verdict.DIVERGED
    return Verdict.NEW if delta.token_ids or reason else Verdict.REPEAT
