"""The Queue in memory: the plain twin of the Lua scripts, verb for verb. Knows no Redis; nothing outlives the process.

The lock makes a verb one step, as Redis does a script. The verbs of a few lines are here; each of the others is in
`plain` under the name of its script.
"""

import threading
from collections.abc import Callable, Sequence

from headrace.contract.errors import ErrorInfo
from headrace.contract.events import Event
from headrace.contract.generation import Choice
from headrace.contract.job import Job, Lease, State
from headrace.queue.base import (
    AcceptReply,
    Append,
    AppendReply,
    ClaimRequest,
    Ending,
    FinishReply,
    Outcome,
    ReapReply,
    ReapRequest,
    RenewReply,
    Timing,
)
from headrace.queue.plain.accept import accept
from headrace.queue.plain.append import append
from headrace.queue.plain.claim import claim
from headrace.queue.plain.ending import end_job
from headrace.queue.plain.finish import finish
from headrace.queue.plain.queueing import put_back
from headrace.queue.plain.reap import reap
from headrace.queue.plain.retry import retry
from headrace.queue.plain.tables import Publish, Tables


class MemoryQueue:
    """A `Queue` for tests and for one process. `clock` gives milliseconds; `beating` and `cards` may be written to."""

    def __init__(
        self, clock: Callable[[], int], timing: Timing | None = None, publish: Publish = lambda _id, _event: 0
    ) -> None:
        self._tables = Tables(clock, timing or Timing(), publish)
        self._lock = threading.RLock()
        self.beating: set[str] = self._tables.beating
        """Workers that are heard of."""
        self.cards: dict[str, str] = self._tables.cards
        """Revisions by lane."""

    # -- reading

    def get(self, job_id: str) -> Job | None:
        with self._lock:
            entry = self._tables.entries.get(job_id)
            return entry.job if entry else None

    def job_ids(self) -> tuple[str, ...]:
        """All that were ever accepted, oldest first."""
        with self._lock:
            return tuple(self._tables.entries)

    def events(self, job_id: str, after_seq: int = 0) -> list[Event]:
        """The journal of a job after a cursor; deltas carry no text."""
        with self._lock:
            return [event for event in self._tables.entries[job_id].journal if event.seq > after_seq]

    def result(self, job_id: str) -> tuple[Choice, ...] | None:
        with self._lock:
            return self._tables.entries[job_id].result

    # -- the other nine verbs

    def accept(self, job: Job, *, body_hash: str = "", hold: bool = False) -> AcceptReply:
        with self._lock:
            return accept(self._tables, job, body_hash, hold)

    def claim(self, request: ClaimRequest) -> tuple[Job, ...]:
        with self._lock:
            return claim(self._tables, request)

    def renew(self, worker: str, leases: Sequence[Lease]) -> RenewReply:
        with self._lock:
            gone = []
            for lease in leases:
                entry = self._tables.writable(lease)
                if isinstance(entry, FinishReply):
                    gone.append(lease.job_id)
                else:
                    entry.until = self._tables.clock() + self._tables.timing.lease_ms
            return RenewReply(tuple(entry.job.lease for entry in self._tables.held_by(worker)), tuple(gone))

    def append(self, writes: Sequence[Append]) -> list[AppendReply]:
        with self._lock:
            return [append(self._tables, write) for write in writes]

    def retry(self, lease: Lease, in_ms: int, error: ErrorInfo) -> FinishReply:
        with self._lock:
            return retry(self._tables, lease, in_ms, error)

    def finish(self, lease: Lease, ending: Ending) -> FinishReply:
        with self._lock:
            return finish(self._tables, lease, ending)

    def release(self, lease: Lease) -> FinishReply:
        with self._lock:
            entry = self._tables.writable(lease)
            if isinstance(entry, FinishReply):
                return entry
            put_back(self._tables, entry)
            return FinishReply(Outcome.OK, State.QUEUED)

    def cancel(self, job_id: str) -> FinishReply:
        with self._lock:
            entry = self._tables.entries.get(job_id)
            if entry is None:
                return FinishReply(Outcome.MISSING)
            if entry.job.ended:
                return FinishReply(Outcome.TERMINAL, entry.job.state)
            end_job(self._tables, entry, State.CANCELLED)
            return FinishReply(Outcome.OK, State.CANCELLED)

    def reap(self, request: ReapRequest) -> ReapReply:
        with self._lock:
            return reap(self._tables, request)
