"""What happens to the jobs a worker holds, told as it happens to whoever watches. Knows no metric and no console.

A watcher is called on the thread on which the fact arose, so it returns at once and never raises.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from headrace.contract.errors import ErrorInfo
from headrace.contract.job import Job, State
from headrace.queue.base import Ending, Outcome


class Why(StrEnum):
    """Why a job left this worker without being ended by it."""

    CANCELLED = "cancelled"
    ENDED_ELSEWHERE = "ended elsewhere"
    """The store has its end, by whoever that was: mostly a cancel whose message came later than this worker's call."""
    EXPIRED = "record expired"
    LEASE_LOST = "lease lost"
    NOT_RENEWED = "leases not renewed"
    """The lease may still stand, but this worker could not renew it for most of its length."""
    ENGINE_DIED = "engine died"
    DRAINED = "drained"
    NOT_BEGUN = "not begun"


def why_refused(outcome: Outcome) -> Why:
    """What a refusal of the store says of the job."""
    return {Outcome.TERMINAL: Why.ENDED_ELSEWHERE, Outcome.MISSING: Why.EXPIRED}.get(outcome, Why.LEASE_LOST)


@dataclass(frozen=True, slots=True)
class Claimed:
    job: Job


@dataclass(frozen=True, slots=True)
class Began:
    """The journal has `started` or `resumed` of this attempt."""

    job: Job


@dataclass(frozen=True, slots=True)
class Delivered:
    """The journal has taken new tokens. `first`: none of them had been journaled by any attempt."""

    job: Job
    tokens: int
    first: bool


@dataclass(frozen=True, slots=True)
class Retried:
    job: Job
    error: ErrorInfo
    in_ms: int


@dataclass(frozen=True, slots=True)
class Ended:
    """This worker has ended the job; `state` is how the store has it, whatever `ending` wanted."""

    job: Job
    ending: Ending
    state: State


@dataclass(frozen=True, slots=True)
class Left:
    """The job is another's now, or nobody's: given back, lost, cancelled. Not told after Retried and Ended."""

    job: Job
    why: Why


Fact = Claimed | Began | Delivered | Retried | Ended | Left
Watcher = Callable[[Fact], None]


def everyone(watchers: tuple[Watcher, ...]) -> Watcher:
    """One watcher that tells them all, in order."""

    def tell(fact: Fact) -> None:
        for watcher in watchers:
            watcher(fact)

    return tell
