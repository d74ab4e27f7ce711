"""Leases are kept, let go, or given up in time."""

import json

import pytest

from headrace.contract.generation import FrozenRequest, Sampling
from headrace.contract.job import Job, Lease, State
from headrace.queue.base import ClaimRequest
from headrace.queue.memory import MemoryQueue
from headrace.telemetry.metrics import Recorder
from tests.unit.workers.jobs import make_job
from workers.inference.facts import Why
from workers.inference.holdings import Holdings
from workers.inference.inbox import Drop, DropAll, Inbox
from workers.inference.leases import Control, LeaseParts, Leases, strangers

WORKER = "w_test"
A, B = Lease("a", "1", 1), Lease("b", "1", 1)


@pytest.mark.parametrize(
    ("held", "known", "before", "expected"),
    [((A, B), {A}, set(), set()), ((A, B), {A}, {B}, {B}), ((A,), {A}, {A}, set()), ((), set(), {B}, set())],
)
def test_a_stranger_is_seen_twice(
    held: tuple[Lease, ...], known: set[Lease], before: set[Lease], expected: set[Lease]
) -> None:
    assert strangers(held, frozenset(known), frozenset(before)) == expected


class Bench:
    """Leases on the memory queue, with time in hand."""

    def __init__(self) -> None:
        self.now = 100.0
        self.queue = MemoryQueue(lambda: int(self.now * 1000))
        self.holdings = Holdings(on_room=lambda: None)
        self.inbox = Inbox()
        self.trusted: list[bool] = []
        self.engine_stops = 0
        parts = LeaseParts(
            worker=WORKER,
            lease_s=10.0,
            queue=self.queue,
            holdings=self.holdings,
            metrics=Recorder(),
            inbox=self.inbox,
            stop_engine=self._stop_engine,
            trust=self.trusted.append,
            clock=lambda: self.now,
        )
        self.leases = Leases(parts)

    def claim(self, name: str) -> Job:
        request = FrozenRequest((1,), Sampling(seed=1), 10)
        self.queue.accept(make_job(name, state=State.ACCEPTED, lease_id="", epoch=0, request=request))
        (job,) = self.queue.claim(ClaimRequest(("m@stable",), WORKER, "r", "d", 10_000, 10_000, 1))
        return job

    def state(self, job: Job) -> State:
        record = self.queue.get(job.id)
        assert record is not None
        return record.state

    def _stop_engine(self) -> None:
        self.engine_stops += 1


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_a_lost_lease_is_told_to_the_emitter_once_it_is_known_to_be_this_one(bench: Bench) -> None:
    job = bench.claim("a")
    bench.holdings.take([job])
    bench.leases.renew()
    assert bench.inbox.get(0.0) is None
    bench.queue.release(job.lease)
    bench.leases.renew()
    assert bench.inbox.get(0.0) == Drop(job.lease, Why.LEASE_LOST)


def test_a_claim_whose_answer_was_lost_goes_back_at_the_second_sight(bench: Bench) -> None:
    job = bench.claim("a")
    bench.leases.renew()
    assert bench.state(job) is State.LEASED
    bench.leases.renew()
    assert bench.state(job) is State.QUEUED


def test_a_worker_that_cannot_renew_stops_by_itself_and_goes_on_after_a_renewal(bench: Bench) -> None:
    bench.leases.renew()
    bench.now += 7.9
    bench.leases.watch()
    assert bench.engine_stops == 0
    bench.now += 0.2
    bench.leases.watch()
    bench.leases.watch()
    assert bench.engine_stops == 1
    assert bench.trusted == [False]
    assert isinstance(bench.inbox.get(0.0), DropAll)
    bench.leases.renew()
    assert bench.trusted == [False, True]
    bench.leases.watch()
    assert bench.inbox.get(0.0) is None


def test_control_messages(bench: Bench) -> None:
    job = bench.claim("a")
    bench.holdings.take([job])
    drains: list[bool] = []
    control = Control(bench.holdings, bench.inbox, lambda: drains.append(True))
    control.handle(json.dumps({"type": "cancel", "job": job.id}).encode())
    assert bench.inbox.get(0.0) == Drop(job.lease, Why.CANCELLED)
    for nonsense in (b"", b"[]", b'{"type": "cancel"}', b'{"type": "cancel", "job": "other"}', b'{"type": "dance"}'):
        control.handle(nonsense)
    assert bench.inbox.get(0.0) is None
    assert drains == []
    control.handle(b'{"type": "drain"}')
    assert drains == [True]
