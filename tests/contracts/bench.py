"""What the contract suite needs besides the verbs: a clock to turn, a journal to read, a look at what is left over."""

import itertools
from typing import Protocol

import redis

from headrace.contract.events import Delta, Event
from headrace.contract.generation import Choice, FrozenRequest, Sampling, Usage
from headrace.contract.ids import new_job_id
from headrace.contract.job import Job, JobClass, Kind, Lease, State
from headrace.queue.base import Append, AppendReply, ClaimRequest, Ending, Queue, ReapReply, ReapRequest, Timing
from headrace.queue.memory import MemoryQueue
from headrace.queue.redis import RedisQueue
from headrace.queue.verbs import Verbs
from headrace.store import keys
from headrace.store.beats import Beat, drop_beat, write_beat
from headrace.store.journal import Journal

LANE = "tiny@stable"
REVISION = "r1"
TIMING = Timing(lease_ms=10_000)


class Bench(Protocol):
    """One queue under test."""

    queue: Queue

    def advance(self, ms: int) -> None: ...
    def events(self, job_id: str) -> list[Event]: ...
    def result(self, job_id: str) -> tuple[Choice, ...] | None: ...
    def beat(self, worker: str) -> None: ...
    def lose_beat(self, worker: str) -> None: ...
    def set_card(self, lane: str, revision: str) -> None: ...
    def leftovers(self) -> set[str]:
        """Whatever still refers to a job as if it were alive."""
        ...


class MemoryBench:
    def __init__(self, timing: Timing = TIMING) -> None:
        self.now = 1_700_000_000_000
        self.memory = MemoryQueue(lambda: self.now, timing)
        self.queue: Queue = self.memory

    def advance(self, ms: int) -> None:
        self.now += ms

    def events(self, job_id: str) -> list[Event]:
        return self.memory.events(job_id)

    def result(self, job_id: str) -> tuple[Choice, ...] | None:
        return self.memory.result(job_id)

    def beat(self, worker: str) -> None:
        self.memory.beating.add(worker)

    def lose_beat(self, worker: str) -> None:
        self.memory.beating.discard(worker)

    def set_card(self, lane: str, revision: str) -> None:
        self.memory.cards[lane] = revision

    def leftovers(self) -> set[str]:
        return set()


class RedisBench:
    def __init__(self, client: redis.Redis, timing: Timing = TIMING) -> None:
        self.client = client
        self._timing = timing
        self._queue = RedisQueue(client, timing)
        self._journal = Journal(client)
        self.queue: Queue = self._queue
        self._offset = 0

    def advance(self, ms: int) -> None:
        self._shift(self._offset + ms)

    def follow(self, now: int) -> None:
        """Make it this time on the server, give or take what a call takes."""
        seconds, micros = self.client.time()
        self._shift(now - seconds * 1000 - micros // 1000)

    def _shift(self, offset: int) -> None:
        self._offset = offset
        self._queue.verbs = Verbs(self._timing, offset)

    def events(self, job_id: str) -> list[Event]:
        return self._journal.read(job_id)

    def result(self, job_id: str) -> tuple[Choice, ...] | None:
        return self._journal.result(job_id)

    def beat(self, worker: str) -> None:
        write_beat(self.client, Beat(worker, LANE, "running"), ttl_ms=60_000)

    def lose_beat(self, worker: str) -> None:
        drop_beat(self.client, worker)

    def set_card(self, lane: str, revision: str) -> None:
        self.client.set(keys.card(lane), f'{{"revision":"{revision}"}}')

    def leftovers(self) -> set[str]:
        """Every key but those that may outlive a job, each with the TTL that it must have."""
        left = set()
        for raw in self.client.scan_iter():
            key = raw.decode()
            kind = key.split(":")[1]
            forever = self.client.pttl(key) == -1
            if kind == "job":
                dead = self.client.hget(key, "state") == b"DEAD"
                if forever != dead:
                    left.add(key)
            elif kind in ("ev", "result", "idem", "avg", "fair", "w"):
                dead = kind == "ev" and self.client.hget(f"hr:job:{key.split(':')[2]}", "state") == b"DEAD"
                if forever != dead:
                    left.add(key)
            elif kind not in ("dlq", "reap", "card", "jobs", "workers"):
                left.add(key)
        return left


def make_job(
    prompt: int = 4,
    max_tokens: int = 64,
    *,
    job_class: JobClass = JobClass.STANDARD,
    lane: str = LANE,
    revision: str = REVISION,
    idem_key: str = "",
    deadline_in: int | None = None,
    n: int = 1,
    tenant: str = "default",
) -> Job:
    """A job as submit hands it in."""
    request = FrozenRequest(tuple(range(prompt)), Sampling(seed=7), max_tokens, n=n)
    return Job(
        id=new_job_id(),
        model="tiny",
        lane=lane,
        revision=revision,
        job_class=job_class,
        kind=Kind.CHAT,
        request=request,
        tenant=tenant,
        idem_key=idem_key,
        deadline_at=deadline_in,
    )


def claim_request(
    worker: str = "w1",
    kv_tokens: int = 100_000,
    *,
    capacity: int | None = None,
    max_jobs: int = 8,
    held: int = 0,
    revision: str = REVISION,
    digest: str = "d1",
    lanes: tuple[str, ...] = (LANE,),
) -> ClaimRequest:
    whole = kv_tokens if capacity is None else capacity
    return ClaimRequest(lanes, worker, revision, digest, kv_tokens, whole, max_jobs, held)


def accept(bench: Bench, *jobs: Job) -> None:
    for job in jobs:
        bench.queue.accept(job)
        # Arrival is told in milliseconds; a later job is later.
        bench.advance(1)


def claim(bench: Bench, worker: str = "w1", *, digest: str = "d1") -> Job:
    """The one job that is ready."""
    [job] = bench.queue.claim(claim_request(worker, digest=digest))
    return job


def delta(offset: int, ids: tuple[int, ...], finish: str | None = None, choice: int = 0) -> Delta:
    return Delta(0, choice, offset, ids, "text", finish)


def append(bench: Bench, lease: Lease, *deltas: Delta) -> AppendReply:
    [reply] = bench.queue.append([Append(lease, deltas)])
    return reply


def success(*ids: int) -> Ending:
    return Ending(State.SUCCEEDED, Usage(4, len(ids)), (Choice(0, ids, "stop"),))


def get(bench: Bench, job_id: str) -> Job:
    job = bench.queue.get(job_id)
    assert job is not None
    return job


def settle(bench: Bench) -> list[ReapReply]:
    """Tick until leases are no longer left alone."""
    replies = []
    for _ in itertools.count():
        replies.append(bench.queue.reap(ReapRequest()))
        if not replies[-1].quiet:
            return replies
        bench.advance(TIMING.lease_ms * 4 // 10)
    raise AssertionError


def let_leases_expire(bench: Bench) -> list[ReapReply]:
    """A full lease passes under steady ticking; the store was up all the while."""
    replies = settle(bench)
    for _ in range(4):
        bench.advance(TIMING.lease_ms * 3 // 10)
        replies.append(bench.queue.reap(ReapRequest()))
    return replies


def types(bench: Bench, job_id: str) -> list[str]:
    return [event.type for event in bench.events(job_id)]
