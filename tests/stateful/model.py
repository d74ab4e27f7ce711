"""What PROTOCOL says a queue does, as naively as it can be said. Knows no store, no script and none of our queues.

Every verb looks at all jobs and writes down what must be true afterwards; the answer is what a queue must answer. Times
are milliseconds of `now`, which the owner turns. Who is claimed next is not decided here: see `claims.py`.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from headrace.contract import events
from headrace.contract.errors import ErrorInfo
from headrace.contract.events import Delta, Event
from headrace.contract.generation import Choice, Usage
from headrace.contract.job import HELD, TERMINAL, Job, Lease, State
from headrace.queue.base import (
    AcceptReply,
    AppendReply,
    Ending,
    FinishReply,
    Outcome,
    ReapReply,
    Timing,
)

RETRIES, DEATHS, DEATHS_IN_ALL, PROGRESS, HISTORY = 3, 3, 10, 16, 20
FIRST_AVERAGE = 256.0
LIVE = frozenset(State) - TERMINAL

Remembered = tuple[int, str, str, int]
"""Of an attempt that went wrong: attempt, worker, code, journaled tokens."""


@dataclass(frozen=True, slots=True)
class Grant:
    """One claim of one job. `leases` has what each queue gave for it, by the queue's name; no two are the same."""

    job_id: str
    worker: str
    epoch: int
    leases: dict[str, Lease] = field(default_factory=dict, hash=False)


@dataclass(slots=True)
class Record:
    """All there is to know of a job. `until` is the end of a lease or of a wait; `arrived_at` is when it was queued
    first; `choices` are the ids of each choice."""

    job: Job
    born_at: int
    deadline: int | None
    choices: list[list[int]]
    reasons: list[str]
    journal: list[Event] = field(default_factory=list)
    state: State = State.ACCEPTED
    epoch: int = 0
    grant: Grant | None = None
    attempt: int = 0
    retries: int = 0
    deaths: int = 0
    deaths_total: int = 0
    death_offset: int = 0
    until: int = 0
    arrived_at: int = 0
    kv_tokens: int = 0
    digest: str = ""
    begun: bool = False
    digests: set[str] = field(default_factory=set)
    error: str = ""
    history: list[Remembered] = field(default_factory=list)
    result: tuple[Choice, ...] | None = None
    cached: int = 0
    leased_at: int | None = None
    first_token_at: int | None = None
    ended_at: int | None = None

    @property
    def tokens(self) -> int:
        return sum(map(len, self.choices))

    @property
    def is_said(self) -> bool:
        return all(self.reasons)

    @property
    def owner(self) -> str:
        return self.grant.worker if self.grant else ""

    def tell(self, make: Callable[[int], Event]) -> None:
        self.journal.append(make(len(self.journal) + 1))


class Model:
    """`beating` are the workers whose beat is there. `quiet_until` is rule 7's: nobody's lease is taken before."""

    def __init__(self, timing: Timing, now: int) -> None:
        self.timing, self.now = timing, now
        self.records: dict[str, Record] = {}
        self.keys: dict[tuple[str, str], tuple[str, str]] = {}
        self.averages: dict[tuple[str, str], float] = {}
        self.beating: set[str] = set()
        self.last_tick: int | None = None
        self.quiet_until = 0

    def held_by(self, worker: str) -> list[Record]:
        return [record for record in self.records.values() if record.state in HELD and record.owner == worker]

    # -- verbs

    def accept(self, job: Job, body_hash: str, hold: bool) -> AcceptReply:
        known_hash, known = self.keys.get((job.tenant, job.idem_key), (body_hash, job.id))
        if known != job.id:
            return AcceptReply(Outcome.EXISTS if known_hash == body_hash else Outcome.CONFLICT, known)
        if job.id not in self.records:
            n = job.request.n
            deadline = None if job.deadline_at is None else self.now + job.deadline_at
            record = Record(job, self.now, deadline, [[] for _ in range(n)], [""] * n)
            self.records[job.id] = record
            if job.idem_key:
                self.keys[job.tenant, job.idem_key] = body_hash, job.id
            record.tell(lambda seq: events.Accepted(seq, job.id, 0))
        if self.records[job.id].state is State.ACCEPTED and not hold:
            self.enqueue(self.records[job.id])
        return AcceptReply(Outcome.OK, job.id)

    def refusal(self, grant: Grant) -> FinishReply | None:
        """Rule 1. None where this grant may write."""
        record = self.records.get(grant.job_id)
        if record is None:
            return FinishReply(Outcome.MISSING)
        if record.state in TERMINAL:
            return FinishReply(Outcome.TERMINAL, record.state)
        return None if record.grant == grant else FinishReply(Outcome.LOST)

    def renew(self, worker: str, grants: Sequence[Grant]) -> tuple[set[str], set[str]]:
        """The jobs that the worker holds, and those of the given ones that it does not."""
        gone = set()
        for grant in grants:
            if self.refusal(grant):
                gone.add(grant.job_id)
            else:
                self.records[grant.job_id].until = self.now + self.timing.lease_ms
        return {record.job.id for record in self.held_by(worker)}, gone

    def append(self, grant: Grant, deltas: Sequence[Delta]) -> AppendReply:
        if refused := self.refusal(grant):
            return AppendReply(refused.outcome, state=refused.state)
        record = self.records[grant.job_id]
        if record.state is State.LEASED:
            self._begin(record)
        diverged = False
        for delta in deltas:
            have = self._have(record, delta)
            if have is not None:
                return AppendReply(Outcome.GAP, len(record.journal), 0, delta.choice, have, diverged=diverged)
            diverged |= self._add(record, delta)
        return AppendReply(Outcome.OK, len(record.journal), diverged=diverged)

    def retry(self, grant: Grant, in_ms: int, error: ErrorInfo) -> FinishReply:
        if refused := self.refusal(grant):
            return refused
        record = self.records[grant.job_id]
        self._remember(record, error.code)
        if record.retries == RETRIES:
            self._end(record, State.DEAD, "retries_exhausted")
        else:
            self._let_go(record)
            record.state, record.until = State.RETRY_WAIT, self.now + in_ms
            record.retries, record.error = record.retries + 1, error.code
            record.tell(lambda seq: events.Retrying(seq, in_ms, error))
        return FinishReply(Outcome.OK, record.state)

    def finish(self, grant: Grant, ending: Ending) -> FinishReply:
        if refused := self.refusal(grant):
            known = self.records.get(grant.job_id)
            return replace(refused, outcome=Outcome.OK) if known and known.grant == grant else refused
        record = self.records[grant.job_id]
        if ending.state is State.SUCCEEDED:
            for choice, ids in enumerate(record.choices):
                if not record.reasons[choice] or len(ending.choices[choice].token_ids) != len(ids):
                    return FinishReply(Outcome.GAP, None, choice, len(ids))
            record.result = ending.choices
        record.cached = ending.usage.cached_tokens
        self._end(record, ending.state, ending.error.code if ending.error else "", keep=True)
        return FinishReply(Outcome.OK, ending.state)

    def release(self, grant: Grant) -> FinishReply:
        if refused := self.refusal(grant):
            return refused
        self._put_back(self.records[grant.job_id])
        return FinishReply(Outcome.OK, State.QUEUED)

    def cancel(self, job_id: str) -> FinishReply:
        record = self.records.get(job_id)
        if record is None:
            return FinishReply(Outcome.MISSING)
        if record.state in TERMINAL:
            return FinishReply(Outcome.TERMINAL, record.state)
        self._end(record, State.CANCELLED)
        return FinishReply(Outcome.OK, State.CANCELLED)

    def reap(self, worker: str, died: bool) -> ReapReply:
        """Answers ids in no order that means anything."""
        if worker:
            before = self.held_by(worker)
            for record in before:
                self._remember(record, "worker_died" if died else "worker_stopped")
                self._bury(record) if died else self._put_back(record)
            return _reaped(before, [], False)
        quiet = self._tick()
        late = [
            r for r in self.records.values() if r.state in LIVE and r.deadline is not None and r.deadline <= self.now
        ]
        for record in late:
            self._end(record, State.EXPIRED)
        waited = [r for r in self.records.values() if r.state is State.RETRY_WAIT and r.until <= self.now]
        for record in waited:
            self.enqueue(record)
        lost = [] if quiet else [r for r in self.records.values() if r.state in HELD and r.until <= self.now]
        for record in lost:
            beats = record.owner in self.beating
            self._remember(record, "lease_expired" if beats else "worker_died")
            self._put_back(record) if beats else self._bury(record)
        return _reaped([*waited, *lost], late, quiet)

    def forget_ticks(self) -> None:
        """The server was restarted: nobody can say how long it was away."""
        self.last_tick = None

    # -- for claims.py

    def take(self, record: Record, grant: Grant, digest: str) -> None:
        record.state, record.grant, record.epoch = State.LEASED, grant, record.epoch + 1
        record.attempt, record.digest, record.leased_at = record.attempt + 1, digest, self.now
        record.until = self.now + self.timing.lease_ms

    def expire(self, record: Record) -> None:
        self._end(record, State.EXPIRED)

    def fail_for_revision(self, record: Record) -> None:
        self._end(record, State.FAILED, "revision_gone")

    # -- how a job moves

    def enqueue(self, record: Record) -> None:
        request, average = record.job.request, self.averages.get((record.job.lane, record.job.tenant), FIRST_AVERAGE)
        tokens: float = len(request.prompt_ids)
        for ids in record.choices:
            tokens += len(ids) + min(request.max_tokens - len(ids), average)
        record.state, record.until, record.kv_tokens = State.QUEUED, 0, math.ceil(tokens)
        record.arrived_at = record.arrived_at or self.now

    def _begin(self, record: Record) -> None:
        grant, attempt, job = record.grant, record.attempt, record.job
        assert grant is not None
        record.state = State.RUNNING
        record.digests.add(record.digest)
        if record.begun:
            offsets, exact = tuple(map(len, record.choices)), len(record.digests) == 1
            record.tell(lambda seq: events.Resumed(seq, attempt, grant.worker, offsets, exact))
        else:
            record.begun = True
            record.tell(lambda seq: events.Started(seq, attempt, grant.worker, job.revision, record.digest))

    def _have(self, record: Record, delta: Delta) -> int | None:
        """Rule 2: where the journal of this choice ends, when the delta must be sent again from there."""
        if delta.choice >= len(record.choices) or record.reasons[delta.choice]:
            return None
        have, end = len(record.choices[delta.choice]), delta.offset + len(delta.token_ids)
        straddles = delta.offset < have and (end > have or delta.finish_reason is not None)
        return have if delta.offset > have or straddles else None

    def _add(self, record: Record, delta: Delta) -> bool:
        """Write what is new; whether it contradicts what is there."""
        if delta.choice >= len(record.choices):
            return True
        ids, reason = record.choices[delta.choice], record.reasons[delta.choice]
        if reason or delta.offset < len(ids):
            end = delta.offset + len(delta.token_ids)
            same = tuple(ids[delta.offset : end]) == delta.token_ids
            return end > len(ids) or not same or delta.finish_reason not in (None, reason)
        if delta.token_ids or delta.finish_reason:
            ids += delta.token_ids
            record.reasons[delta.choice] = delta.finish_reason or ""
            record.tell(lambda seq: replace(delta, seq=seq, text=""))
            if delta.token_ids and record.first_token_at is None:
                record.first_token_at = self.now
            if record.tokens >= record.death_offset + PROGRESS or record.is_said:
                record.deaths = 0
        return False

    def _let_go(self, record: Record) -> None:
        record.grant, record.epoch = None, record.epoch + 1

    def _put_back(self, record: Record) -> None:
        self._let_go(record)
        self.enqueue(record)

    def _remember(self, record: Record, code: str) -> None:
        past = (record.attempt, record.owner, code, record.tokens)
        record.history = [*record.history, past][-HISTORY:]

    def _bury(self, record: Record) -> None:
        """Rule 8; a job that is said to its end has no engine to kill."""
        if not record.is_said:
            record.deaths, record.deaths_total = record.deaths + 1, record.deaths_total + 1
            record.death_offset = record.tokens
            if record.deaths == DEATHS or record.deaths_total == DEATHS_IN_ALL:
                self._end(record, State.DEAD, "poison")
                return
        self._put_back(record)

    def _end(self, record: Record, state: State, error: str = "", *, keep: bool = False) -> None:
        if not keep:
            self._let_go(record)
        record.state, record.until, record.error, record.ended_at = state, 0, error, self.now
        usage = Usage(len(record.job.request.prompt_ids), record.tokens, record.cached)
        last: dict[State, Callable[[int], Event]] = {
            State.SUCCEEDED: lambda seq: events.Completed(seq, usage),
            State.CANCELLED: events.Cancelled,
            State.EXPIRED: events.Expired,
        }
        record.tell(last.get(state, lambda seq: events.Failed(seq, ErrorInfo(error, ""))))
        if state is State.SUCCEEDED:
            place = record.job.lane, record.job.tenant
            average = self.averages.get(place, FIRST_AVERAGE)
            self.averages[place] = round(average + (record.tokens / len(record.choices) - average) / 8, 2)

    def _tick(self) -> bool:
        """Rule 7: half a lease without a tick may be an outage."""
        if self.last_tick is None or self.now - self.last_tick > self.timing.lease_ms / 2:
            self.quiet_until = self.now + self.timing.lease_ms
        self.last_tick = self.now
        return self.now < self.quiet_until


def _reaped(moved: Sequence[Record], expired: Sequence[Record], quiet: bool) -> ReapReply:
    queued = tuple(record.job.id for record in moved if record.state is State.QUEUED)
    dead = tuple(record.job.id for record in moved if record.state is State.DEAD)
    return ReapReply(queued, tuple(record.job.id for record in expired), dead, quiet)
