"""The feeder as a whole: its window, its way out, what it does while a side is away, and messages that are none."""

import base64
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import redis

from headrace.contract.errors import LedgerUnavailable, StoreUnavailable
from headrace.contract.job import Job, State
from headrace.ledger import adopter, message
from headrace.ledger.feeder import Feeder
from headrace.ledger.fleet_jobs import FleetJobs
from headrace.queue.base import Outcome, Timing
from headrace.store import keys
from headrace.store.blobs import read_all
from headrace.store.blobs_folder import FolderBlobs
from headrace.store.connection import connect
from tests.ledger.benches import PATIENCE_S, AmqpBench, Bench, SqsBench, eventually, publish, receive
from tests.ledger.world import World
from tests.redis_server import running_redis


@pytest.fixture
def world(bench: Bench, client: redis.Redis, blobs: FolderBlobs) -> World:
    return World(bench, client, blobs)


@pytest.fixture
def sqs_world(sqs_bench: SqsBench, client: redis.Redis, blobs: FolderBlobs) -> World:
    return World(sqs_bench, client, blobs)


@pytest.fixture
def amqp_world(amqp_bench: AmqpBench, client: redis.Redis, blobs: FolderBlobs) -> World:
    return World(amqp_bench, client, blobs)


def publish_jobs(world: World, count: int) -> list[Job]:
    """Jobs of which Redis knows nothing."""
    ledger, jobs = world.bench.open(), [world.make_job() for _ in range(count)]
    for job in jobs:
        ledger.publish(message.write(job))
    return jobs


@contextmanager
def running(feeder: Feeder) -> Iterator[Feeder]:
    """Both halves in their threads."""
    thread = threading.Thread(target=feeder.run)
    thread.start()
    try:
        yield feeder
    finally:
        feeder.stop.set()
        thread.join(PATIENCE_S)
    assert not thread.is_alive()


def test_a_full_window_takes_no_more(world: World) -> None:
    jobs = publish_jobs(world, 5)
    feeder = world.feeder(world.bench.open(window=3), window=3)
    world.drive(feeder, lambda: feeder.holder.held == 3, work=False)
    for _ in range(5):
        world.turn(feeder, work=False)
    assert feeder.holder.held == 3
    assert sum(world.queue.get(job.id) is not None for job in jobs) == 3
    world.drive(feeder, lambda: len(world.acked) == 5 and not feeder.holder.held)
    assert set(world.runs.values()) == {1}


def test_on_the_way_out_every_message_goes_back_at_once(world: World) -> None:
    jobs = publish_jobs(world, 12)
    ledger = world.bench.open()
    feeder = world.feeder(ledger)
    world.drive(feeder, lambda: feeder.holder.held == 12, work=False)
    began = time.monotonic()
    feeder.holder.give_all_back()
    ledger.close()
    assert feeder.holder.held == 0
    heir = world.bench.open(window=99)
    assert len(receive(heir, 12)) == len(jobs) == 12
    assert time.monotonic() - began < 20.0, "they came when their leases ended"


def test_asked_to_stop_it_is_gone_soon(world: World) -> None:
    (job,) = publish_jobs(world, 1)
    feeder = world.feeder(world.bench.open())
    with running(feeder):
        eventually(lambda: world.queue.get(job.id) is not None)
        began = time.monotonic()
    assert time.monotonic() - began < 10.0
    assert receive(world.bench.open(window=99), 1)


def test_a_side_that_is_away_is_said_once(
    sqs_world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Each for itself, however often it is asked; and the feeder lives on."""
    world = sqs_world
    feeder = Feeder(
        world.bench.open(),
        FleetJobs(world.client, Timing(), world.payloads),
        world.blobs,
        world.bench.settings(look_s=0.01, accepted_s=0.03),
    )
    turns: list[str] = []

    def away(side: str) -> None:
        turns.append(side)
        raise StoreUnavailable(f"The test took {side} away.")

    monkeypatch.setattr(feeder.adopter, "turn", partial(away, "Redis"))
    monkeypatch.setattr(feeder.republisher, "turn", partial(away, "the broker"))
    with running(feeder):
        eventually(lambda: turns.count("Redis") > 5 and turns.count("the broker") > 5)
    assert caplog.text.count("feeder side away") == 2


def test_before_the_brokers_limit_a_message_is_handed_over(world: World) -> None:
    """A job that takes longer than any message may be held: it goes on, and its message comes again, to anybody."""
    (job,) = publish_jobs(world, 1)
    feeder = world.feeder(world.bench.open(hand_over_s=0.1))
    world.drive(feeder, lambda: feeder.holder.held == 1, work=False)
    (claimed,) = world.claim()
    world.drive(feeder, partial(comes_again, feeder), work=False)
    world.finish(claimed)
    world.settle(feeder, job.id)
    assert world.runs[job.id] == 1


def comes_again(feeder: Feeder) -> bool:
    """Whether it holds a message that it, or somebody else, has held before."""
    return any(each.delivery.attempts > 1 for each in feeder.holder._held.values())


def test_who_lost_a_message_never_acks_it(sqs_world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """It slept through its lease with the job's end in its hands; by then the message is another's, and SQS would take
    the ack."""
    world, ledger = sqs_world, sqs_world.bench.open(visibility_s=60)
    (job,) = publish_jobs(world, 1)
    sleeper = world.feeder(ledger)
    world.drive(sleeper, lambda: world.marks.has(job.id))
    world.bench.lapse(ledger)
    monkeypatch.setattr(sleeper.holder, "_clock", lambda: time.monotonic() + 60)
    heir = world.bench.open(visibility_s=61)
    (taken,) = receive(heir, 1)
    assert taken.attempts == 2
    world.turn(sleeper)
    world.turn(sleeper)
    assert not world.acked
    assert world.bench.left() == 1
    assert heir.ack([taken]) == []


def test_a_heartbeat_keeps_a_message_past_its_lease(sqs_world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two leases pass, a third of one at a time, by the feeder's clock and by the broker's."""
    world = sqs_world
    assert isinstance(world.bench, SqsBench)
    (job,) = publish_jobs(world, 1)
    feeder = world.feeder(world.bench.open(visibility_s=60))
    world.drive(feeder, lambda: feeder.holder.held == 1, work=False)
    other, slept_s = world.bench.open(visibility_s=61), 0.0
    monkeypatch.setattr(feeder.holder, "_clock", lambda: time.monotonic() + slept_s)
    for _ in range(6):
        slept_s += 21
        world.bench.pass_time(21)
        world.turn(feeder, work=False)
        assert other.receive(1, 0.0) == []
    world.settle(feeder, job.id)
    assert world.acked[job.id] == 1


@pytest.mark.parametrize(
    "body",
    [
        b"hello",
        b"[]",
        b"{}",
        b"\xff\xfe",
        b"null",
        b'{"headrace":1,"job":"job_1","needs":1,"record":{},"packed":{}}',
        b'{"headrace":1,"job":"%s","needs":1,"record":{},"packed":{}}',
        b'{"headrace":1,"job":"%s","needs":1,"ref":"ledger/job_other"}',
        b'{"headrace":1,"job":"%s","needs":1,"ref":"ledger/%s"}',
    ],
)
def test_what_is_no_message_is_put_aside(amqp_world: World, body: bytes) -> None:
    """It loops for ever in nobody's hands, and the others go on."""
    world = amqp_world
    (job,) = publish_jobs(world, 1)
    body = body.replace(b"%s", world.make_job().id.encode())
    ledger = world.bench.open()
    ledger.publish(body)
    feeder = Feeder(ledger, world.feeder(ledger).adopter._jobs, world.blobs, world.bench.settings())
    world.drive(feeder, lambda: world.marks.has(job.id) and not feeder.holder.held)
    (parked,) = list(world.blobs.listing("parked/"))
    told = json.loads(read_all(world.blobs, parked.key))
    assert told["body"].encode("latin-1", "replace")[:5] == body[:5] or "\\xff" in told["body"]
    assert told["reason"]
    world.bench.lapse(ledger)
    assert world.bench.left() == 0


def test_a_message_for_a_newer_feeder_is_given_back_in_the_end(
    sqs_world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adopter, "PATIENCE_S", 0.05)
    world, job = sqs_world, sqs_world.make_job()
    ledger = world.bench.open()
    body = json.loads(message.write(job))
    ledger.publish(json.dumps(body | {"needs": 99}).encode())
    feeder = world.feeder(ledger)
    world.drive(feeder, partial(comes_again, feeder))
    assert world.queue.get(job.id) is None
    assert list(world.blobs.listing("parked/")) == []
    assert world.bench.left() == 1


def test_a_mistake_with_one_message_is_no_end_of_the_others(sqs_world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world = sqs_world
    bad, good = publish_jobs(world, 2)
    feeder = world.feeder(world.bench.open())
    accept = feeder.adopter._jobs.accept

    def accept_some(job: Job, body_hash: str) -> object:
        if job.id == bad.id:
            raise ZeroDivisionError("a mistake of ours")
        return accept(job, body_hash)

    monkeypatch.setattr(feeder.adopter, "_jobs", _Replaced(feeder.adopter._jobs, accept=accept_some))
    world.drive(feeder, lambda: world.acked[good.id] == 1)
    assert world.queue.get(bad.id) is None
    feeder.holder.give_all_back()
    world.settle(world.feeder(world.bench.open()), bad.id)


def test_while_redis_is_away_messages_are_held(world: World, blobs: FolderBlobs) -> None:
    jobs = publish_jobs(world, 3)
    with running_redis(fsync="no") as server:
        client = connect(server.url, connect_timeout_s=1, socket_timeout_s=1)
        other = World(world.bench, client, blobs)
        feeder = other.feeder(world.bench.open())
        server.kill()
        give_up_at = time.monotonic() + PATIENCE_S
        while feeder.holder.held < 3:
            assert time.monotonic() < give_up_at
            feeder.holder.turn(world.bench.poll_s)
            with pytest.raises(StoreUnavailable):
                feeder.adopter.turn()
        server.start()
        other.drive(feeder, lambda: len(other.acked) == 3 and not feeder.holder.held)
        assert other.runs == {job.id: 1 for job in jobs}
        client.close()


def test_a_new_redis_gets_everything(world: World, blobs: FolderBlobs, tmp_path: Path) -> None:
    """Another server, with another disk, under a feeder that goes on."""
    jobs = publish_jobs(world, 4)
    with running_redis(fsync="no") as server:
        client = connect(server.url, connect_timeout_s=1, socket_timeout_s=1)
        other = World(world.bench, client, blobs)
        feeder = other.feeder(world.bench.open())
        other.drive(feeder, lambda: feeder.holder.held == 4, work=False)
        first = other.claim()
        assert len(first) == 4
        other.finish(first[0])
        other.drive(feeder, lambda: feeder.holder.held == 3, work=False)
        server.kill()
        for file in server.folder.rglob("*"):
            if file.is_file():
                file.unlink()
        server.start()
        other.drive(feeder, lambda: len(other.acked) == 4 and not feeder.holder.held)
        assert other.runs == {job.id: 1 + (job.id != first[0].id) for job in jobs}
        client.close()


async def test_the_record_waits_for_its_message(world: World) -> None:
    """A message may come days after its job has ended; until then the record says so, and then it goes as others do."""
    job, day_ms = world.make_job(), 24 * 3600 * 1000
    with world.submitter(world.bench.open()) as queue:
        assert (await queue.accept(job)).outcome is Outcome.OK
    world.work()
    for key in (keys.job(job.id), keys.result(job.id)):
        assert int(world.client.pttl(key)) > 14 * day_ms
    feeder = world.feeder(world.bench.open())
    world.settle(feeder, job.id)
    for key in (keys.job(job.id), keys.result(job.id)):
        assert 0 < int(world.client.pttl(key)) <= day_ms


def test_a_deadline_is_told_by_the_clock_of_the_store(sqs_world: World) -> None:
    """A job that comes back after the loss has no more time than it was given."""
    world, ledger = sqs_world, sqs_world.bench.open()
    late, soon = world.make_job(), world.make_job()
    now = message.wall_ms()
    ledger.publish(message.write(late, deadline_at=now - 1000))
    ledger.publish(message.write(soon, deadline_at=now + 60_000))
    feeder = world.feeder(ledger)
    world.drive(feeder, lambda: world.acked.keys() >= {late.id, soon.id})
    states = [job.state if job else None for job in (world.queue.get(late.id), world.queue.get(soon.id))]
    assert states == [State.EXPIRED, State.SUCCEEDED]


@pytest.mark.timeout(400)
def test_a_broker_dies_under_a_feeder_and_comes_back(amqp_world: World) -> None:
    """What was published and confirmed is there again; what was acked may be, too, and is known. Nothing runs twice."""
    world = amqp_world
    assert isinstance(world.bench, AmqpBench)
    done, held = publish_jobs(world, 2)
    # A confirm that a broker owes while it starts may never come: then the message is published again.
    ledger, server = world.bench.open(timeout_s=5.0), world.bench.server
    feeder = world.feeder(ledger)
    world.drive(feeder, lambda: feeder.holder.held == 2, work=False)
    claims = {job.id: job for job in world.claim()}
    world.finish(claims[done.id])
    world.drive(feeder, lambda: world.acked[done.id] == 1, work=False)
    server.kill()
    with pytest.raises(LedgerUnavailable):
        feeder.holder.turn(5.0)
    with pytest.raises(LedgerUnavailable):
        ledger.publish(b"refused")
    world.finish(claims[held.id])
    feeder.adopter.turn()
    server.begin()
    server.wait()
    late = world.make_job()
    publish(ledger, message.write(late))
    finished = {done.id, held.id, late.id}

    def all_done() -> bool:
        world.turn(feeder)
        return world.acked.keys() >= finished and not feeder.holder.held

    eventually(all_done)
    assert world.runs == dict.fromkeys(finished, 1)
    world.bench.lapse(ledger)
    assert world.bench.left() == 0


def test_a_message_says_all_of_a_job(world: World) -> None:
    job = replace(world.make_job(), metadata={"ä": "\ud7ff"}, tenant="t", traceparent="x", idem_key="k")
    read = message.read(message.write(job, body_hash="h", deadline_at=5))
    assert read.job == replace(job, next_offset=read.job.next_offset if read.job else ())
    assert (read.body_hash, read.deadline_at) == ("h", 5)
    packed = json.loads(message.write(job))["packed"]["prompt_ids"]
    assert len(base64.b64decode(packed)) == 16


class _Replaced:
    """Something with a few of its methods replaced."""

    def __init__(self, inner: object, **methods: object) -> None:
        self._inner = inner
        self._methods = methods

    def __getattr__(self, name: str) -> object:
        return self._methods.get(name) or getattr(self._inner, name)
