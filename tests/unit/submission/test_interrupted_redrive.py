"""Killed anywhere, or with its answers lost: redrive and purge are said again, and nothing is lost or done twice."""

import asyncio
from pathlib import Path

import pytest
import redis
import redis.asyncio

from headrace.contract.dead_letter_query import DeadLetterFilter
from headrace.contract.job import Job
from headrace.queue.base import AcceptReply
from headrace.submission.redrive import Redriven
from tests.unit.submission.dead_letter_bench import EVERY, Bench, Killed, Killer


@pytest.fixture
def bench(client: redis.Redis, async_client: redis.asyncio.Redis, tmp_path: Path) -> Bench:
    return Bench(client, async_client, tmp_path / "blobs")


async def test_killed_before_the_letter_has_left_it_makes_no_second_job(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = bench.bury()

    async def killed(*_: object, **__: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(bench.letters, "retire", killed)
        with pytest.raises(Killed):
            await bench.redriver.redrive(EVERY, limit=10)
    assert bench.parked() == {old.id}
    (first,) = bench.queued()
    page = await bench.redriver.redrive(EVERY, limit=10)
    assert page.outcomes == (Redriven(old.id, first),)
    assert bench.queued() == {first}
    assert bench.parked() == set()
    assert len(bench.told) == 1


async def test_a_call_whose_answer_was_lost_makes_no_second_job(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """The queue has the job, and the gateway never hears of it."""
    old = bench.bury(40)
    accept = bench.async_queue.accept

    async def lost(job: Job, *, body_hash: str = "") -> AcceptReply:
        await accept(job, body_hash=body_hash)
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(bench.async_queue, "accept", lost)
        with pytest.raises(Killed):
            await bench.redriver.redrive(EVERY, limit=10)
    await bench.redriver.redrive(EVERY, limit=10)
    (only,) = bench.queued()
    assert bench.get(old.id).redriven_as == only


async def test_two_at_once_make_one_job_each(bench: Bench) -> None:
    ids = {bench.bury().id for _ in range(6)}
    pages = await asyncio.gather(*(bench.redriver.redrive(EVERY, limit=10) for _ in range(3)))
    assert len(bench.queued()) == len(ids)
    assert bench.parked() == set()
    for page in pages:
        for outcome in page.outcomes:
            assert outcome.job_id in bench.queued()


@pytest.mark.parametrize("verb", ["redrive", "purge"])
@pytest.mark.parametrize("heard", [False, True])
async def test_killed_at_any_call_and_said_again(
    bench: Bench, async_client: redis.asyncio.Redis, monkeypatch: pytest.MonkeyPatch, verb: str, heard: bool
) -> None:
    async def said(letter: Job) -> None:
        if verb == "redrive":
            await bench.redriver.redrive(DeadLetterFilter(ids=(letter.id,)), limit=10)
        else:
            await bench.letters.purge(letter.id)

    killer = Killer(async_client, monkeypatch)
    call, killed = 0, True
    while killed:
        call, killed, letter = call + 1, False, bench.bury(40)
        killer.at(call, heard=heard)
        try:
            await said(letter)
        except Killed:
            killed = True
        killer.at(0, heard=heard)
        await said(letter)
        assert bench.parked() == set()
        new = bench.queued()
        if verb == "redrive":
            (job_id,) = new
            assert bench.get(letter.id).redriven_as == job_id
            assert bench.payloads.fetch_prompt(bench.get(job_id)).request.prompt_ids == tuple(range(40))
            bench.queue.cancel(job_id)
        else:
            assert new == set()
            assert bench.queue.get(letter.id) is None
            assert bench.blob_keys() == []
    assert call > 3  # that many calls it has at least, and each of them was the last of one life
