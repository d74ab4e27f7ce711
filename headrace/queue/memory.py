"""The Queue in memory: the plain twin of the Lua scripts, verb for verb. Knows no Redis; nothing outlives the process.

It keeps no index: who is ready, due or expired is looked up among all records, so that it can be read as the meaning
of the scripts.
"""

import secrets
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from headrace.contract import events
from headrace.contract.errors import ErrorInfo
from headrace.contract.events import Cancelled, Completed, Delta, Event, Expired, Failed, Resumed, Retrying, Started
from headrace.contract.generation import Choice, Usage
from headrace.contract.job import HELD, Job, JobClass, Lease, State
from headrace.queue import rules
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
from headrace.queue.claiming import Act, Moment, Ready, decide

Publish = Callable[[str, dict[str, Any]], int]
"""Takes a job id and an event as public JSON; answers how many heard it."""


@dataclass(slots=True)
class _Entry:
    """A record and what the queue keeps beside it. `until` is the end of a lease or of a wait."""

    job: Job
    journal: list[Event] = field(default_factory=list)
    finished: list[str] = field(default_factory=list)
    started_digest: str | None = None
    until: int | None = None
    passed_at: int | None = None
    result: tuple[Choice, ...] | None = None


class MemoryQueue:
    """A `Queue` for tests and for one process. `clock` gives milliseconds; `beating` and `cards` may be written to."""

    def __init__(
        self, clock: Callable[[], int], timing: Timing | None = None, publish: Publish = lambda _id, _event: 0
    ) -> None:
        self.beating: set[str] = set()
        self.cards: dict[str, str] = {}
        self._clock = clock
        self._timing = timing or Timing()
        self._publish = publish
        self._entries: dict[str, _Entry] = {}
        self._idempotency: dict[tuple[str, str], tuple[str, str]] = {}
        self._averages: dict[tuple[str, str], float] = {}
        self._turns: dict[tuple[str, JobClass], int] = {}
        self._next_places: dict[tuple[str, JobClass, str], int] = {}
        self._last_tick: int | None = None
        self._quiet_until = 0
        self._lock = threading.RLock()

    # -- reading

    def get(self, job_id: str) -> Job | None:
        with self._lock:
            entry = self._entries.get(job_id)
            return entry.job if entry else None

    def job_ids(self) -> tuple[str, ...]:
        """All that were ever accepted, oldest first."""
        with self._lock:
            return tuple(self._entries)

    def events(self, job_id: str, after_seq: int = 0) -> list[Event]:
        """The journal of a job after a cursor; deltas carry no text."""
        with self._lock:
            return [event for event in self._entries[job_id].journal if event.seq > after_seq]

    def result(self, job_id: str) -> tuple[Choice, ...] | None:
        with self._lock:
            return self._entries[job_id].result

    # -- the ten verbs

    def accept(self, job: Job, *, body_hash: str = "", hold: bool = False) -> AcceptReply:
        with self._lock:
            known_body, known_id = self._idempotency.get((job.tenant, job.idem_key), (body_hash, job.id))
            if job.idem_key and known_id != job.id:
                return AcceptReply(Outcome.EXISTS if known_body == body_hash else Outcome.CONFLICT, known_id)
            if known := self._entries.get(job.id):
                if known.job.state is State.ACCEPTED and not hold:
                    self._enqueue(known)
                return AcceptReply(Outcome.OK, job.id, known.job.created_at)
            now = self._clock()
            deadline = None if job.deadline_at is None else now + job.deadline_at
            fresh = replace(job, created_at=now, deadline_at=deadline, next_offset=(0,) * job.request.n)
            entry = self._entries[job.id] = _Entry(fresh, finished=[""] * job.request.n)
            if job.idem_key:
                self._idempotency[job.tenant, job.idem_key] = (body_hash, job.id)
            self._write(entry, events.Accepted(1, job.id, now))
            if not hold:
                self._enqueue(entry)
            return AcceptReply(Outcome.OK, job.id, now)

    def claim(self, request: ClaimRequest) -> tuple[Job, ...]:
        with self._lock:
            mine = self._held_by(request.worker)
            if any(rules.runs_alone(entry.job) for entry in mine):
                return ()
            queued = [entry for entry in self._entries.values() if entry.job.state is State.QUEUED]
            ready = [self._ready(each) for each in queued if each.job.lane in request.lanes]
            request = replace(request, held=request.held or len(mine))
            moment = Moment(self._clock(), self._timing.urgent_ms, self._timing.starvation_ms, self.cards)
            return self._carry_out(decide(request, ready, moment), request)

    def renew(self, worker: str, leases: Sequence[Lease]) -> RenewReply:
        with self._lock:
            gone = []
            for lease in leases:
                entry = self._writable(lease)
                if isinstance(entry, FinishReply):
                    gone.append(lease.job_id)
                else:
                    entry.until = self._clock() + self._timing.lease_ms
            return RenewReply(tuple(entry.job.lease for entry in self._held_by(worker)), tuple(gone))

    def append(self, writes: Sequence[Append]) -> list[AppendReply]:
        with self._lock:
            return [self._append(write) for write in writes]

    def retry(self, lease: Lease, in_ms: int, error: ErrorInfo) -> FinishReply:
        with self._lock:
            entry = self._writable(lease)
            if isinstance(entry, FinishReply):
                return entry
            self._remember(entry, error)
            if entry.job.retries >= rules.MOST_RETRIES:
                return self._give_up(entry, error)
            self._let_go(entry)
            entry.job = replace(entry.job, state=State.RETRY_WAIT, retries=entry.job.retries + 1, error=error)
            entry.until = self._clock() + in_ms
            self._write(entry, Retrying(entry.job.seq + 1, in_ms, error))
            return FinishReply(Outcome.OK, State.RETRY_WAIT)

    def finish(self, lease: Lease, ending: Ending) -> FinishReply:
        with self._lock:
            entry = self._writable(lease)
            if isinstance(entry, FinishReply):
                job = self.get(lease.job_id)
                mine = job is not None and job.ended and job.lease == lease
                return replace(entry, outcome=Outcome.OK) if mine else entry
            if ending.state is State.SUCCEEDED:
                lengths = {choice.index: len(choice.token_ids) for choice in ending.choices}
                for index, have in enumerate(entry.job.next_offset):
                    if not entry.finished[index] or lengths.get(index) != have:
                        return FinishReply(Outcome.GAP, choice=index, have=have)
                entry.result = tuple(sorted(ending.choices, key=lambda choice: choice.index))
            error = None if ending.state is State.SUCCEEDED else ending.error or rules.UNSAID
            self._end(entry, ending.state, error, cached_tokens=ending.usage.cached_tokens, keep_lease=True)
            return FinishReply(Outcome.OK, ending.state)

    def release(self, lease: Lease) -> FinishReply:
        with self._lock:
            entry = self._writable(lease)
            if isinstance(entry, FinishReply):
                return entry
            self._put_back(entry)
            return FinishReply(Outcome.OK, State.QUEUED)

    def cancel(self, job_id: str) -> FinishReply:
        with self._lock:
            entry = self._entries.get(job_id)
            if entry is None:
                return FinishReply(Outcome.MISSING)
            if entry.job.ended:
                return FinishReply(Outcome.TERMINAL, entry.job.state)
            self._end(entry, State.CANCELLED)
            return FinishReply(Outcome.OK, State.CANCELLED)

    def reap(self, request: ReapRequest) -> ReapReply:
        with self._lock:
            if request.worker:
                return self._reap_worker(request)
            return self._reap_due(self._is_quiet(), request.limit)

    # -- claiming

    def _carry_out(self, acts: Sequence[tuple[str, Act]], request: ClaimRequest) -> tuple[Job, ...]:
        claimed: list[Job] = []
        for job_id, act in acts:
            entry = self._entries[job_id]
            if act is Act.TAKE:
                claimed.append(self._take(entry, request))
            elif act is Act.PASS_OVER:
                entry.passed_at = min(self._clock(), entry.passed_at or self._clock())
            elif act is Act.EXPIRE:
                self._end(entry, State.EXPIRED)
            else:
                self._end(entry, State.FAILED, rules.REVISION_GONE)
        return tuple(claimed)

    def _take(self, entry: _Entry, request: ClaimRequest) -> Job:
        now, job = self._clock(), entry.job
        self._give_turn(job, now)
        entry.job = replace(
            job,
            state=State.LEASED,
            epoch=job.epoch + 1,
            owner=request.worker,
            digest=request.digest,
            lease_id=secrets.token_hex(8),
            attempt=job.attempt + 1,
            leased_at=now,
        )
        entry.until, entry.passed_at = now + self._timing.lease_ms, None
        return entry.job

    # -- appending

    def _append(self, write: Append) -> AppendReply:
        entry = self._writable(write.lease)
        if isinstance(entry, FinishReply):
            return AppendReply(entry.outcome, state=entry.state)
        listeners, diverged = self._begin(entry) if entry.job.state is State.LEASED else 0, False
        for delta in write.deltas:
            verdict = rules.judge(delta, entry.job.next_offset, entry.finished, entry.journal)
            diverged = diverged or verdict is rules.Verdict.DIVERGED
            if verdict is rules.Verdict.GAP:
                have = entry.job.next_offset[delta.choice]
                return AppendReply(Outcome.GAP, entry.job.seq, listeners, delta.choice, have, diverged=diverged)
            if verdict is rules.Verdict.NEW:
                listeners = self._add(entry, delta)
        return AppendReply(Outcome.OK, entry.job.seq, listeners, diverged=diverged)

    def _begin(self, entry: _Entry) -> int:
        digests = tuple(dict.fromkeys((*entry.job.digests, entry.job.digest)))
        job = entry.job = replace(entry.job, state=State.RUNNING, digests=digests)
        if entry.started_digest is None:
            entry.started_digest = job.digest
            return self._write(entry, Started(job.seq + 1, job.attempt, job.owner, job.revision, job.digest))
        return self._write(entry, Resumed(job.seq + 1, job.attempt, job.owner, job.next_offset, len(digests) == 1))

    def _add(self, entry: _Entry, delta: Delta) -> int:
        offsets = list(entry.job.next_offset)
        offsets[delta.choice] += len(delta.token_ids)
        entry.finished[delta.choice] = delta.finish_reason or ""
        first = entry.job.first_token_at or (self._clock() if delta.token_ids else None)
        past = sum(offsets) >= entry.job.death_offset + rules.PROGRESS or all(entry.finished)
        deaths = 0 if past else entry.job.deaths
        entry.job = replace(entry.job, next_offset=tuple(offsets), first_token_at=first, deaths=deaths)
        return self._write(entry, replace(delta, seq=entry.job.seq + 1))

    def _write(self, entry: _Entry, event: Event) -> int:
        entry.job = replace(entry.job, seq=event.seq)
        public = events.to_json(event)
        # Kept as a reader of the journal would see it: no text, and of an error what is public.
        kept = events.from_json(public)
        entry.journal.append(replace(kept, text="") if isinstance(kept, Delta) else kept)
        return self._publish(entry.job.id, public)

    # -- into a lane and out of hands

    def _writable(self, lease: Lease) -> _Entry | FinishReply:
        """The fence: the entry when this lease may write to it, else the answer."""
        entry = self._entries.get(lease.job_id)
        if entry is None:
            return FinishReply(Outcome.MISSING)
        if entry.job.ended:
            return FinishReply(Outcome.TERMINAL, entry.job.state)
        if not lease.lease_id or entry.job.lease != lease or entry.job.state not in HELD:
            return FinishReply(Outcome.LOST)
        return entry

    def _held_by(self, worker: str) -> list[_Entry]:
        return [entry for entry in self._entries.values() if entry.job.owner == worker and entry.job.state in HELD]

    def _enqueue(self, entry: _Entry) -> None:
        average = self._averages.get((entry.job.lane, entry.job.tenant), rules.FIRST_AVERAGE)
        kv_tokens = rules.estimate(entry.job, average)
        place = entry.job.place or self._next_place(entry.job, kv_tokens)
        entry.job = replace(entry.job, state=State.QUEUED, queued_at=self._clock(), kv_tokens=kv_tokens, place=place)
        entry.until = entry.passed_at = None

    def _ready(self, entry: _Entry) -> Ready:
        return Ready(entry.job, entry.passed_at, self._turns.get((entry.job.lane, entry.job.job_class), 0))

    def _next_place(self, job: Job, kv_tokens: int) -> int:
        """Start-time fair queueing: where the tenant's last job ends, and never before the turn."""
        lane = job.lane, job.job_class
        turn = self._turns.setdefault(lane, self._clock())
        place = max(turn, self._next_places.get((*lane, job.tenant), 0))
        self._next_places[*lane, job.tenant] = place + kv_tokens
        return place

    def _give_turn(self, job: Job, now: int) -> None:
        """The turn comes to a job that is taken, unless its deadline let it go before others."""
        if job.deadline_at is None or job.deadline_at > now + self._timing.urgent_ms:
            lane = job.lane, job.job_class
            self._turns[lane] = max(self._turns[lane], job.place)

    def _refund(self, job: Job) -> None:
        """A job that ends without ever having been taken has cost its tenant nothing."""
        if job.state is State.QUEUED and job.attempt == 0:
            self._next_places[job.lane, job.job_class, job.tenant] -= job.kv_tokens

    def _remember(self, entry: _Entry, error: ErrorInfo) -> None:
        entry.job = replace(entry.job, history=rules.remember(entry.job, error, self._clock()))

    def _let_go(self, entry: _Entry) -> None:
        entry.job = replace(entry.job, epoch=entry.job.epoch + 1, lease_id="", owner="")
        entry.until = None

    def _give_up(self, entry: _Entry, error: ErrorInfo) -> FinishReply:
        """All retries have failed: the job begins with another model, if it may, or is dead."""
        if (other := rules.fallen_back(entry.job)) is None:
            self._end(entry, State.DEAD, rules.retries_exhausted(error))
            return FinishReply(Outcome.OK, State.DEAD)
        self._let_go(entry)
        self._write(entry, Retrying(entry.job.seq + 1, 0, error))
        job = entry.job
        entry.job = replace(other, seq=job.seq, epoch=job.epoch, lease_id="", owner="", error=error, digests=())
        entry.started_digest = None
        self._enqueue(entry)
        return FinishReply(Outcome.OK, State.QUEUED)

    def _put_back(self, entry: _Entry) -> None:
        self._let_go(entry)
        self._enqueue(entry)

    def _end(
        self,
        entry: _Entry,
        state: State,
        error: ErrorInfo | None = None,
        *,
        cached_tokens: int = 0,
        keep_lease: bool = False,
    ) -> None:
        """The one finish routine: every terminal state is written here."""
        entry.until = entry.passed_at = None
        self._refund(entry.job)
        if not keep_lease:
            self._let_go(entry)
        job, tokens = entry.job, sum(entry.job.next_offset)
        usage = Usage(len(job.request.prompt_ids), tokens, cached_tokens)
        ref = f"memory:{job.id}" if entry.result is not None else ""
        entry.job = replace(job, state=state, ended_at=self._clock(), error=error, usage=usage, result_ref=ref)
        if state is State.SUCCEEDED and job.request.max_tokens:
            key = (job.lane, job.tenant)
            average = self._averages.get(key, rules.FIRST_AVERAGE)
            self._averages[key] = rules.moved(average, tokens / len(job.next_offset))
        self._write(entry, _last_event(job.seq + 1, state, usage, error))

    # -- reaping

    def _is_quiet(self) -> bool:
        now, last = self._clock(), self._last_tick
        gap, longest = 0 if last is None else now - last, self._timing.lease_ms * rules.QUIET_GAP
        if -gap > longest:
            self._turn_back(-gap)
        if last is None or abs(gap) > longest:
            self._quiet_until = now + self._timing.lease_ms
        self._last_tick = now
        return now < self._quiet_until

    def _turn_back(self, by: int) -> None:
        """The clock went back: what was to pass by the old one must not stay for as long. Deadlines stay as told."""
        for entry in self._entries.values():
            entry.until = None if entry.until is None else entry.until - by

    def _reap_worker(self, request: ReapRequest) -> ReapReply:
        requeued: list[str] = []
        dead: list[str] = []
        for entry in self._held_by(request.worker)[: request.limit]:
            self._remember(entry, rules.WORKER_DIED if request.died else rules.WORKER_STOPPED)
            died = request.died and self._bury(entry)
            if not died:
                self._put_back(entry)
            (dead if died else requeued).append(entry.job.id)
        return ReapReply(tuple(requeued), (), tuple(dead))

    def _reap_due(self, quiet: bool, limit: int) -> ReapReply:
        requeued: list[str] = []
        expired: list[str] = []
        dead: list[str] = []
        for entry in self._due(lambda entry: None if entry.job.ended else entry.job.deadline_at, limit):
            self._end(entry, State.EXPIRED)
            expired.append(entry.job.id)
        for entry in self._due(lambda entry: entry.until if entry.job.state is State.RETRY_WAIT else None, limit):
            self._enqueue(entry)
            requeued.append(entry.job.id)
        if quiet:
            return ReapReply(tuple(requeued), tuple(expired), quiet=True)
        for entry in self._due(lambda entry: entry.until if entry.job.state in HELD else None, limit):
            beats = entry.job.owner in self.beating
            self._remember(entry, rules.LEASE_EXPIRED if beats else rules.WORKER_DIED)
            died = not beats and self._bury(entry)
            if not died:
                self._put_back(entry)
            (dead if died else requeued).append(entry.job.id)
        return ReapReply(tuple(requeued), tuple(expired), tuple(dead))

    def _due(self, when: Callable[[_Entry], int | None], limit: int) -> list[_Entry]:
        now = self._clock()
        due = [(at, entry.job.id, entry) for entry in self._entries.values() if (at := when(entry)) is not None]
        return [entry for at, _, entry in sorted(due, key=lambda item: item[:2])[:limit] if at <= now]

    def _bury(self, entry: _Entry) -> bool:
        """Count a death, unless the job is said to its end; True when it was one too many and the job has ended."""
        job = entry.job
        if all(entry.finished):
            return False
        job = replace(job, deaths=job.deaths + 1, deaths_total=job.deaths_total + 1, death_offset=sum(job.next_offset))
        entry.job = job
        if job.deaths < rules.MOST_DEATHS and job.deaths_total < rules.MOST_DEATHS_IN_ALL:
            return False
        self._end(entry, State.DEAD, rules.poison(job.deaths, job.deaths_total))
        return True


def _last_event(seq: int, state: State, usage: Usage, error: ErrorInfo | None) -> Event:
    if error is not None:
        return Failed(seq, error)
    if state is State.SUCCEEDED:
        return Completed(seq, usage)
    return Cancelled(seq) if state is State.CANCELLED else Expired(seq)
