"""The ground of the plain verbs, as `base`, `events` and `history` are of the scripts: all that is kept, the fence, the
journal's writing side. Knows no verb.

There is no index: who is ready, due or expired is looked up among all records, so that the verbs can be read as the
meaning of the scripts.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from headrace.contract import events
from headrace.contract.errors import ErrorInfo
from headrace.contract.events import Delta, Event
from headrace.contract.generation import Choice
from headrace.contract.job import HELD, Job, JobClass, Lease
from headrace.queue import rules
from headrace.queue.base import FinishReply, Outcome, Timing

Publish = Callable[[str, dict[str, Any]], int]
"""Takes a job id and an event as public JSON; answers how many heard it."""


@dataclass(slots=True)
class Entry:
    """A record and what the queue keeps beside it. `until` is the end of a lease or of a wait, `finished` has a finish
    reason for each choice ('' for none)."""

    job: Job
    journal: list[Event] = field(default_factory=list)
    finished: list[str] = field(default_factory=list)
    started_digest: str | None = None
    until: int | None = None
    passed_at: int | None = None
    result: tuple[Choice, ...] | None = None

    @property
    def is_said(self) -> bool:
        """Whether the journal has every choice to its end, so that only the end of the job itself is owed."""
        return all(self.finished)


@dataclass(slots=True)
class Tables:
    """What Redis keeps for the scripts; times are milliseconds of `clock`.

    `entries` by job id, oldest first; `idempotency` body hash and job id by tenant and key; `averages` of output tokens
    by lane and tenant; `turns` by lane and class, `next_places` by lane, class and tenant.
    """

    clock: Callable[[], int]
    timing: Timing
    publish: Publish
    beating: set[str] = field(default_factory=set)
    cards: dict[str, str] = field(default_factory=dict)
    entries: dict[str, Entry] = field(default_factory=dict)
    idempotency: dict[tuple[str, str], tuple[str, str]] = field(default_factory=dict)
    averages: dict[tuple[str, str], float] = field(default_factory=dict)
    turns: dict[tuple[str, JobClass], int] = field(default_factory=dict)
    next_places: dict[tuple[str, JobClass, str], int] = field(default_factory=dict)
    last_tick: int | None = None
    quiet_until: int = 0

    def writable(self, lease: Lease) -> Entry | FinishReply:
        """The fence: the entry when this lease may write to it, else the answer."""
        entry = self.entries.get(lease.job_id)
        if entry is None:
            return FinishReply(Outcome.MISSING)
        if entry.job.ended:
            return FinishReply(Outcome.TERMINAL, entry.job.state)
        if not lease.lease_id or entry.job.lease != lease or entry.job.state not in HELD:
            return FinishReply(Outcome.LOST)
        return entry

    def held_by(self, worker: str) -> list[Entry]:
        return [entry for entry in self.entries.values() if entry.job.owner == worker and entry.job.state in HELD]

    def write(self, entry: Entry, event: Event) -> int:
        """Journal and publish; answers how many heard it."""
        entry.job = replace(entry.job, seq=event.seq)
        public = events.to_json(event)
        # Kept as a reader of the journal would see it: no text, and of an error what is public.
        kept = events.from_json(public)
        entry.journal.append(replace(kept, text="") if isinstance(kept, Delta) else kept)
        return self.publish(entry.job.id, public)

    def remember(self, entry: Entry, error: ErrorInfo) -> None:
        """What went wrong with an attempt, into the record's history."""
        entry.job = replace(entry.job, history=rules.remember(entry.job, error, self.clock()))
