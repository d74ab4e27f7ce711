"""Threads as workers, a sweeper, and a Redis that is killed under them: every job ends once, with every token once."""

import threading
import time
from collections.abc import Callable, Iterator
from functools import partial

import pytest

from headrace.contract.errors import StoreUnavailable
from headrace.contract.events import TERMINAL_TYPES
from headrace.contract.generation import Choice, Usage
from headrace.contract.job import Job, State
from headrace.queue.base import Append, Ending, Outcome, ReapRequest, Timing
from headrace.queue.redis import RedisQueue
from headrace.store.connection import connect
from headrace.store.journal import Journal
from tests.contracts.bench import RedisBench, claim_request, delta, make_job
from tests.redis_server import RedisServer, running_redis

QUICK = Timing(lease_ms=1000)
TOKENS = 64
LIMIT_S = 60.0


@pytest.fixture
def server() -> Iterator[RedisServer]:
    with running_redis() as server:
        yield server


class Worker(threading.Thread):
    """Claims, writes eight tokens at a time and finishes; says again whatever was not answered."""

    def __init__(self, name: str, url: str, stop: threading.Event, careless: bool = False) -> None:
        super().__init__(name=name)
        self.client = connect(url)
        self.queue = RedisQueue(self.client, QUICK)
        self.journal = Journal(self.client)
        self.stop = stop
        self.careless = careless
        self.finished: list[str] = []

    def run(self) -> None:
        with self.client:
            while not self.stop.is_set():
                try:
                    for job in self.queue.claim(claim_request(self.name, max_jobs=4)):
                        self.work(job)
                except StoreUnavailable:
                    self.stop.wait(0.02)
                self.stop.wait(0.005)

    def work(self, job: Job) -> None:
        have = len(self.journal.ids(job.id)[0].token_ids)
        for at in range(have, TOKENS, 8):
            if self.careless and at >= 32 + have:
                return
            end = min(at + 8, TOKENS)
            write = Append(job.lease, (delta(at, tuple(range(at, end)), "length" if end == TOKENS else None),))
            if not self.insist(partial(self.write, write)):
                return
        done = Ending(State.SUCCEEDED, Usage(4), (Choice(0, tuple(range(TOKENS)), "length"),))
        if self.insist(lambda: self.queue.finish(job.lease, done).outcome is Outcome.OK):
            self.finished.append(job.id)

    def write(self, write: Append) -> bool:
        [reply] = self.queue.append([write])
        return reply.outcome is Outcome.OK and not reply.diverged

    def insist(self, verb: Callable[[], bool]) -> bool:
        while not self.stop.is_set():
            try:
                return verb()
            except StoreUnavailable:
                self.stop.wait(0.02)
        return False


def test_every_job_ends_once_while_redis_is_killed(server: RedisServer) -> None:
    stop = threading.Event()
    with connect(server.url) as client:
        queue, journal = RedisQueue(client, QUICK), Journal(client)
        jobs = [make_job(4, TOKENS) for _ in range(60)]
        for job in jobs:
            queue.accept(job)
        workers = [Worker(f"w{i}", server.url, stop, careless=i == 0) for i in range(3)]
        for worker in workers:
            worker.start()
        try:
            for _ in range(2):
                await_ended(queue, jobs, at_least=ended_now(queue, jobs) + 5)
                server.restart()
            await_ended(queue, jobs, at_least=len(jobs))
        finally:
            stop.set()
            for worker in workers:
                worker.join(10)
        finished = [job_id for worker in workers for job_id in worker.finished]
        assert sorted(finished) == sorted(job.id for job in jobs)
        for job in jobs:
            events = journal.read(job.id)
            assert [event.seq for event in events] == list(range(1, len(events) + 1))
            assert [event.type in TERMINAL_TYPES for event in events].count(True) == 1
            assert journal.ids(job.id)[0].token_ids == tuple(range(TOKENS))
        assert RedisBench(client).leftovers() == set()


def ended_now(queue: RedisQueue, jobs: list[Job]) -> int:
    return sum(1 for job in jobs if (kept := queue.get(job.id)) is not None and kept.ended)


def await_ended(queue: RedisQueue, jobs: list[Job], at_least: int) -> None:
    """Sweep until so many have ended."""
    deadline = time.monotonic() + LIMIT_S
    while ended_now(queue, jobs) < at_least:
        assert time.monotonic() < deadline
        queue.reap(ReapRequest())
        time.sleep(0.02)
