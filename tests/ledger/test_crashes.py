"""A process dies between any two of its calls; another one goes on. Every accepted job ends once, and its message goes
when it is done, not before."""

from typing import Any

import pytest
import redis

from headrace.contract.errors import LedgerUnavailable
from headrace.contract.job import Job, State
from headrace.queue.base import Outcome
from headrace.store.blobs_folder import FolderBlobs
from tests.ledger.benches import Bench
from tests.ledger.world import Died, Fate, World


@pytest.fixture
def world(bench: Bench, client: redis.Redis, blobs: FolderBlobs) -> World:
    return World(bench, client, blobs)


async def accepted(world: World, job: Job) -> Job:
    ledger = world.bench.open()
    with world.submitter(ledger) as queue:
        assert (await queue.accept(job)).outcome is Outcome.OK
    return job


def check_done(world: World, job: Job, runs: int = 1) -> None:
    record, mark = world.queue.get(job.id), world.marks.get(job.id)
    assert record is not None
    assert record.state is State.SUCCEEDED
    assert mark is not None
    assert (mark.state, mark.job.id, mark.job.usage) == ("SUCCEEDED", job.id, record.usage)
    assert world.payloads.fetch_result(job.id, mark.result).startswith(b'[[0,"stop",3]]\n')
    assert world.runs[job.id] == runs


@pytest.mark.parametrize("prompt", [4, 60_000])
async def test_a_gateway_dies_between_any_two_calls_of_submit(world: World, prompt: int) -> None:
    """Whatever was written of the job, a feeder that comes later brings it to one end; nothing waits for ever."""
    step, over = 0, False
    while not over:
        step += 1
        job, fate = world.make_job(prompt), Fate(step)
        dying = world.bench.open()
        with world.submitter(dying, fate) as queue:
            try:
                await queue.accept(job)
                over = True
            except Died:
                pass
        world.bench.lapse(dying)
        feeder = world.feeder(world.bench.open())
        if world.queue.get(job.id) is None:
            assert fate.calls == []
            continue
        world.settle(feeder, job.id)
        check_done(world, job)
        assert not world.client.zcard("hr:accepted")
        world.bench.lapse(feeder._ledger)
        assert world.bench.left() == 0
    large = prompt > 4
    assert step == 4 + large
    assert [name.partition(".")[2] for name in fate.calls] == ["accept", *["put"] * large, "publish", "accept"]


@pytest.mark.parametrize("loss", ["nothing", "redis"])
async def test_a_feeder_dies_between_any_two_calls(world: World, loss: str) -> None:
    step, over = 0, False
    while not over:
        step += 1
        job = await accepted(world, world.make_job())
        if loss == "redis":
            world.lose_redis()
        dying = world.feeder(world.bench.open(), Fate(step))
        try:
            world.settle(dying, job.id)
            over = True
        except Died:
            world.bench.lapse(dying._ledger)
            heir = world.feeder(world.bench.open())
            world.settle(heir, job.id)
            world.bench.lapse(heir._ledger)
        else:
            world.bench.lapse(dying._ledger)
        check_done(world, job)
        assert world.bench.left() == 0
    assert step > 10


@pytest.mark.parametrize("when", ["before", "queued", "running", "ended", "marked"])
async def test_redis_loses_everything(world: World, when: str) -> None:
    """It is run again if nobody could know that it was done, and never otherwise."""
    job = await accepted(world, world.make_job())
    feeder = world.feeder(world.bench.open())
    if when == "before":
        world.lose_redis()
    world.drive(feeder, lambda: feeder.holder.held > 0, work=False)
    if when == "queued":
        world.lose_redis()
    elif when == "running":
        (claimed,) = world.claim()
        world.begin(claimed)
        world.lose_redis()
    elif when == "ended":
        world.work()
        world.lose_redis()
    elif when == "marked":
        world.work()
        feeder.adopter.turn()
        assert world.marks.has(job.id)
        world.lose_redis()
    world.settle(feeder, job.id)
    assert world.runs[job.id] == {"running": 2, "ended": 2}.get(when, 1)
    assert world.acked[job.id] == 1
    if when != "marked":
        check_done(world, job, world.runs[job.id])
    world.bench.lapse(feeder._ledger)
    assert world.bench.left() == 0


async def test_a_message_that_comes_again_after_a_wipe_is_known(world: World) -> None:
    """Its job was done, its ack was lost, and so was everything in Redis."""
    job = await accepted(world, world.make_job())
    ledger = world.bench.open()
    feeder = world.feeder(ledger)
    world.drive(feeder, lambda: world.marks.has(job.id))
    assert world.acked[job.id] == 0
    world.bench.lapse(ledger)
    world.lose_redis()
    heir = world.feeder(world.bench.open())
    world.settle(heir, job.id)
    assert world.runs[job.id] == 1
    assert world.queue.get(job.id) is None
    world.bench.lapse(heir._ledger)
    assert world.bench.left() == 0


async def test_two_messages_of_one_job(world: World) -> None:
    job = await accepted(world, world.make_job())
    ledger = world.bench.open()
    with world.submitter(ledger) as queue:
        await queue._publisher.publish(job, "", None)
    feeder = world.feeder(world.bench.open())
    world.drive(feeder, lambda: world.acked[job.id] == 2 and not feeder.holder.held)
    assert world.runs[job.id] == 1
    world.bench.lapse(feeder._ledger)
    assert world.bench.left() == 0


async def test_a_publication_whose_answer_was_lost(world: World) -> None:
    """The client hears 503, and the job is cancelled; its message, which is there after all, is no job any more."""
    job = world.make_job()
    ledger = world.bench.open()

    class Forgetful:
        def __getattr__(self, name: str) -> Any:
            return getattr(ledger, name)

        def publish(self, body: bytes) -> None:
            ledger.publish(body)
            raise LedgerUnavailable("The test swallowed the answer.")

    with world.submitter(Forgetful()) as queue, pytest.raises(LedgerUnavailable):
        await queue.accept(job)
    assert world.claim() == ()
    world.queue.cancel(job.id)
    feeder = world.feeder(world.bench.open())
    world.settle(feeder, job.id)
    assert not world.runs
    mark = world.marks.get(job.id)
    assert mark is not None
    assert (mark.state, mark.result) == ("CANCELLED", "")


async def test_the_same_key_again_publishes_what_was_left_in_the_middle(world: World) -> None:
    job = world.make_job(idem_key="k")
    ledger = world.bench.open()
    with world.submitter(ledger, Fate(2)) as queue, pytest.raises(Died):
        await queue.accept(job, body_hash="h")
    with world.submitter(world.bench.open()) as queue:
        again = await queue.accept(world.make_job(idem_key="k"), body_hash="h")
        assert (again.outcome, again.job_id) == (Outcome.EXISTS, job.id)
        other = await queue.accept(world.make_job(idem_key="k"), body_hash="other")
        assert other.outcome is Outcome.CONFLICT
    assert [each.id for each in world.claim()] == [job.id]


async def test_a_key_that_was_used_again_after_the_loss(world: World) -> None:
    """Two jobs were accepted under it, so two end."""
    job = await accepted(world, world.make_job(idem_key="k"))
    world.lose_redis()
    later = await accepted(world, world.make_job(idem_key="k"))
    feeder = world.feeder(world.bench.open())
    world.drive(feeder, lambda: world.acked.keys() >= {job.id, later.id} and not feeder.holder.held)
    assert world.runs == {job.id: 1, later.id: 1}
