"""A fleet around one ledger, turned by hand in one thread: a worker that obeys, and calls that a process can die at.

The oracle is in it: a message may only be acknowledged when its job is marked as done.
"""

import json
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, cast

import redis

from headrace.contract.events import Delta
from headrace.contract.generation import Choice, FrozenRequest, Sampling, Usage
from headrace.contract.ids import new_job_id
from headrace.contract.job import Job, JobClass, Kind, State
from headrace.ledger.base import Delivery, Ledger
from headrace.ledger.done import DoneMarks
from headrace.ledger.feeder import Feeder
from headrace.ledger.fleet_jobs import FleetJobs
from headrace.ledger.publishing import Publisher, PublishingQueue
from headrace.queue.base import AcceptReply, Append, ClaimRequest, Ending, Timing
from headrace.queue.redis import RedisQueue
from headrace.store.blobs import BlobStore
from headrace.store.payloads import Payloads
from tests.ledger.benches import PATIENCE_S, Bench

LANE = "tiny@stable"
REVISION = "r1"


class Died(BaseException):
    """The process is no more: nothing of it runs on, not even what catches errors."""


@dataclass
class Fate:
    """Dies before the outside call number `at`; never for 0. `calls` names those that were made."""

    at: int = 0
    calls: list[str] = field(default_factory=list)

    def call(self, name: str) -> None:
        if self.at and len(self.calls) + 1 >= self.at:
            raise Died(name)
        self.calls.append(name)


class Mortal:
    """What is outside of the process, reached from within: each call may be the one it dies at."""

    def __init__(self, inner: Any, fate: Fate) -> None:
        self._inner = inner
        self._fate = fate

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)
        if name == "close" or not callable(found):
            return found

        def call(*args: Any, **kwargs: Any) -> Any:
            self._fate.call(f"{type(self._inner).__name__}.{name}")
            return found(*args, **kwargs)

        return call


class Judge:
    """A ledger that fails the test when a message is acknowledged before its job is marked as done."""

    def __init__(self, inner: Ledger, world: "World") -> None:
        self._inner = inner
        self._world = world

    def ack(self, deliveries: list[Delivery]) -> list[Delivery]:
        for delivery in deliveries:
            job_id = json.loads(delivery.body)["job"]
            assert self._world.marks.has(job_id), f"{job_id} was acknowledged before it was done"
            self._world.acked[job_id] += 1
        return self._inner.ack(deliveries)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


class _Awaited:
    """A blocking queue for a coroutine."""

    def __init__(self, queue: Any) -> None:
        self._queue = queue

    async def accept(self, job: Job, *, body_hash: str = "", hold: bool = False) -> AcceptReply:
        return cast(AcceptReply, self._queue.accept(job, body_hash=body_hash, hold=hold))

    async def get(self, job_id: str) -> Job | None:
        return cast("Job | None", self._queue.get(job_id))

    async def fetch_prompts(self, job: Job) -> Job:
        return job


class World:
    """`runs` counts how often a worker took each job, `acked` how often its message was acknowledged."""

    def __init__(self, bench: Bench, client: redis.Redis, blobs: BlobStore) -> None:
        self.bench = bench
        self.client = client
        self.blobs = blobs
        self.marks = DoneMarks(blobs)
        self.payloads = Payloads(blobs, 200_000)
        self.queue = RedisQueue(client, Timing(), payloads=self.payloads)
        self.runs: Counter[str] = Counter()
        self.acked: Counter[str] = Counter()

    def make_job(self, prompt: int = 4, **fields: Any) -> Job:
        request = FrozenRequest(tuple(range(prompt)), Sampling(seed=7), 8)
        return Job(new_job_id(), "tiny", LANE, REVISION, JobClass.STANDARD, Kind.CHAT, request, **fields)

    @contextmanager
    def submitter(self, ledger: Ledger, fate: Fate | None = None) -> Iterator[PublishingQueue]:
        """As a gateway has it."""
        fate = fate or Fate()
        publisher = Publisher(Mortal(ledger, fate), Mortal(self.blobs, fate), limit_s=PATIENCE_S)
        queue = _Awaited(Mortal(self.queue, fate))
        try:
            yield PublishingQueue(queue, queue, publisher, self.bench.scheme)
        finally:
            publisher.close()

    def feeder(self, ledger: Ledger, fate: Fate | None = None, *, window: int = 1_000) -> Feeder:
        fate = fate or Fate()
        judged = Mortal(Judge(ledger, self), fate)
        jobs = Mortal(FleetJobs(self.client, Timing(), self.payloads), fate)
        settings = self.bench.settings(accepted_s=0.001, window=window)
        return Feeder(cast(Ledger, judged), cast(FleetJobs, jobs), Mortal(self.blobs, fate), settings)

    def turn(self, feeder: Feeder, *, work: bool = True) -> None:
        """Each half once, and a worker beside them."""
        feeder.holder.turn(self.bench.poll_s)
        feeder.adopter.turn()
        feeder.republisher.turn()
        if work:
            self.work()

    def drive(
        self, feeder: Feeder, until: Callable[[], bool], within_s: float = PATIENCE_S, *, work: bool = True
    ) -> None:
        give_up_at = time.monotonic() + within_s
        while not until():
            assert time.monotonic() < give_up_at, f"it did not become so within {within_s} s"
            self.turn(feeder, work=work)

    def settle(self, feeder: Feeder, job_id: str) -> None:
        """Until the job's message is out of the ledger."""
        self.drive(feeder, lambda: self.acked[job_id] > 0 and not feeder.holder.held)

    def work(self) -> None:
        """Everything that is queued, to its end."""
        for job in self.claim():
            self.finish(job)

    def claim(self) -> tuple[Job, ...]:
        jobs = self.queue.claim(ClaimRequest((LANE,), "w_test", REVISION, "d1", 100_000, 100_000, 10))
        self.runs.update(job.id for job in jobs)
        return jobs

    def begin(self, job: Job) -> None:
        """Its first tokens."""
        self.queue.append([Append(job.lease, (Delta(0, 0, 0, (1, 2)),))])

    def finish(self, job: Job) -> None:
        at = job.next_offset[0]
        ids = (1, 2, 3)
        self.queue.append([Append(job.lease, (Delta(0, 0, at, ids[at:], finish_reason="stop"),))])
        ending = Ending(State.SUCCEEDED, Usage(4, 3), (Choice(0, ids, "stop"),))
        self.queue.finish(job.lease, ending)

    def lose_redis(self) -> None:
        """All of it, at once."""
        self.client.flushall()
