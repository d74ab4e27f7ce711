"""The Queue's ten verbs and what they take and answer. Knows no Redis: `redis.py` and `memory.py` both do as told here.

Every verb is idempotent: a call may be written and its answer lost, so it is safe to say it again.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from headrace.contract.errors import ErrorInfo
from headrace.contract.events import Delta
from headrace.contract.generation import Choice, Usage
from headrace.contract.job import SCHEMA, Job, Lease, State


class Outcome(StrEnum):
    """First word of every script's answer."""

    OK = "OK"
    LOST = "LOST"
    """The fence: another epoch or lease id is on the record."""
    TERMINAL = "TERMINAL"
    GAP = "GAP"
    """The delta starts above the next offset, or straddles it; send again from `have`."""
    EXISTS = "EXISTS"
    CONFLICT = "CONFLICT"
    FULL = "FULL"
    MISSING = "MISSING"
    """There is no such record (never was, or past its retention)."""


@dataclass(frozen=True, slots=True)
class Timing:
    """Times of the protocol in milliseconds; tests shorten them, nothing else differs."""

    lease_ms: int = 10_000
    journal_ttl_ms: int = 15 * 60_000
    result_ttl_ms: int = 24 * 3_600_000
    starvation_ms: int = 2_000
    urgent_ms: int = 30_000


@dataclass(frozen=True, slots=True)
class AcceptReply:
    """OK, EXISTS (same key, same body: `job_id` is the earlier job), CONFLICT (same key, other body) or FULL.

    `created_at` is what the record of an OK says, so that nobody has to look for it.
    """

    outcome: Outcome
    job_id: str
    created_at: int | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class ClaimRequest:
    """What a worker can take now.

    `kv_tokens` is its free budget, `capacity` its whole one (a larger job is left to a larger worker),
    `held` how many jobs it holds (a job that has killed twice is only given to an idle worker, alone); `schema` the
    newest record it can run (a job that needs a newer worker is left to one).
    """

    lanes: tuple[str, ...]
    worker: str
    revision: str
    digest: str
    kv_tokens: int
    capacity: int
    max_jobs: int
    held: int = 0
    schema: int = SCHEMA


@dataclass(frozen=True, slots=True)
class Append:
    """One write to a journal. Without deltas it only says that the attempt has begun.

    The first append of an attempt writes `started`, or `resumed` when the journal has a `started`.
    """

    lease: Lease
    deltas: tuple[Delta, ...] = ()


@dataclass(frozen=True, slots=True)
class AppendReply:
    """`listeners` counts the subscribers of the live channel; `choice` and `have` belong to GAP; `state` to TERMINAL.

    `diverged` is the alarm of rule 2: ids below the next offset came again and were not the same.
    """

    outcome: Outcome
    seq: int = 0
    listeners: int = 0
    choice: int = 0
    have: int = 0
    state: State | None = None
    diverged: bool = False


@dataclass(frozen=True, slots=True)
class RenewReply:
    """`held` is all the server thinks this worker holds; `gone` those of the given leases that it lost."""

    held: tuple[Lease, ...]
    gone: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Ending:
    """How an attempt ended: SUCCEEDED with its choices, or FAILED with an error. `completion_tokens` were journaled."""

    state: State
    usage: Usage
    choices: tuple[Choice, ...] = ()
    error: ErrorInfo | None = None


@dataclass(frozen=True, slots=True)
class FinishReply:
    """OK (also for the same worker's repeat), LOST, TERMINAL (somebody else ended it: `state`) or MISSING.

    `state` is where the job is now. `finish` with SUCCEEDED also answers GAP, when the journal does not hold all ids
    and the finish reason of `choice`: append from `have` and finish again.
    """

    outcome: Outcome
    state: State | None = None
    choice: int = 0
    have: int = 0


@dataclass(frozen=True, slots=True)
class ReapRequest:
    """Without `worker`: expired leases, due retries, passed deadlines. With it: all that this dead worker held.

    `died` says that an engine process was seen to die with these jobs in it, so a death is counted for each.
    """

    worker: str = ""
    died: bool = False
    limit: int = 200


@dataclass(frozen=True, slots=True)
class ReapReply:
    """Job ids by what became of them. `quiet` means that the store was away and leases are being left alone."""

    requeued: tuple[str, ...] = ()
    expired: tuple[str, ...] = ()
    dead: tuple[str, ...] = ()
    quiet: bool = False


class Queue(Protocol):
    """The one door to scheduling truth. Raises StoreUnavailable when it cannot be reached, and nothing else."""

    def accept(self, job: Job, *, body_hash: str = "", hold: bool = False) -> AcceptReply:
        """Write record, idempotency key and `accepted` event, and queue the job. `job.idem_key` may be empty.

        `job.deadline_at`, when set, holds milliseconds from now; the record gets the server's time of it. With `hold`
        the job stays ACCEPTED, and is queued when it is accepted again without.
        """
        ...

    def claim(self, request: ClaimRequest) -> tuple[Job, ...]:
        """Up to `max_jobs` jobs that fit, each with a new epoch and lease id; empty when there are none."""
        ...

    def renew(self, worker: str, leases: Sequence[Lease]) -> RenewReply:
        """Prolong these leases by a full term."""
        ...

    def append(self, writes: Sequence[Append]) -> list[AppendReply]:
        """Journal and publish, all writes in one round trip; one refused write does not touch the others."""
        ...

    def retry(self, lease: Lease, in_ms: int, error: ErrorInfo) -> FinishReply:
        """LEASED or RUNNING → RETRY_WAIT, counted, with a `retrying` event."""
        ...

    def finish(self, lease: Lease, ending: Ending) -> FinishReply:
        """End the job: usage settled, lease gone, result kept, last event written."""
        ...

    def release(self, lease: Lease) -> FinishReply:
        """LEASED or RUNNING → QUEUED, uncounted: the worker drains or stops."""
        ...

    def cancel(self, job_id: str) -> FinishReply:
        """Any live state → CANCELLED; the owner is told on its control channel. TERMINAL if it had ended."""
        ...

    def reap(self, request: ReapRequest) -> ReapReply:
        """Put back what nobody holds any more. Anyone may call it at any time."""
        ...

    def get(self, job_id: str) -> Job | None:
        """The record, or None."""
        ...
