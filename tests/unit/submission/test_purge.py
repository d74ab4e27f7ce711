"""Purge: nothing of the job stays, whatever comes in between, and no other is touched."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import redis
import redis.asyncio

from headrace.contract.dead_letter_query import DeadLetterFilter
from headrace.contract.ids import new_job_id
from headrace.contract.job import Job
from headrace.store import keys
from headrace.store.async_payloads import AsyncPayloads
from headrace.store.dead_letters import DeadLetters
from headrace.submission.redrive import Redriven
from tests.unit.submission.dead_letter_bench import EVERY, OTHER, Bench, Killed


@pytest.fixture
def bench(client: redis.Redis, async_client: redis.asyncio.Redis, tmp_path: Path) -> Bench:
    return Bench(client, async_client, tmp_path / "blobs")


async def test_a_fallbacks_prompt_is_copied_and_purged_with_the_job(bench: Bench) -> None:
    dead, old = bench.bury(fallback=OTHER), bench.bury(fallback=OTHER)
    assert bench.blob_keys() == [f"prompts/{dead.id}.1", f"prompts/{old.id}.1"]
    assert await bench.letters.purge(dead.id)
    (outcome,) = (await bench.redriver.redrive(EVERY, limit=10)).outcomes
    new = bench.get(outcome.job_id)
    assert bench.payloads.fetch_prompts(new).fallback == replace(OTHER, prompt_ref=f"blob:prompts/{new.id}.1")
    assert bench.blob_keys() == [f"prompts/{old.id}.1", f"prompts/{new.id}.1"]


@pytest.mark.parametrize("verb", ["purge", "redrive"])
async def test_a_ledger_hears_that_the_job_is_done_before_it_is_gone(
    bench: Bench, async_client: redis.asyncio.Redis, verb: str
) -> None:
    """Its message may come again, and must not bring the job back."""
    letter = bench.bury(40, ledger_receipt="sqs")
    settled: list[tuple[str, bool]] = []

    async def settle(job: Job) -> None:
        settled.append((job.id, bench.queue.get(job.id) is not None))

    letters = DeadLetters(async_client, AsyncPayloads(bench.payloads), settle)
    if verb == "purge":
        await letters.purge(letter.id)
    else:
        await letters.retire(letter, new_job_id(), record_ms=1_000, journal_ms=1_000)
    assert settled == [(letter.id, True)]
    assert bench.parked() == set()


async def test_a_purge_leaves_nothing_of_the_job(bench: Bench) -> None:
    known = set(bench.client.scan_iter())
    kept = bench.bury(40)
    letter = bench.bury(40, idem_key="mine")
    assert await bench.letters.purge(letter.id)
    assert not await bench.letters.purge(letter.id)
    assert bench.blob_keys() == [f"prompts/{kept.id}"]
    assert bench.client.zrange(keys.job_index("default"), 0, -1) == [kept.id.encode()]
    assert [key for key in set(bench.client.scan_iter()) - known if letter.id.encode() in key or b"mine" in key] == []


async def test_a_purge_that_is_killed_is_finished_by_the_next(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    letter = bench.bury(40)
    drop = bench.blobs.delete

    def then_killed(key: str) -> None:
        drop(key)
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(bench.blobs, "delete", then_killed)
        with pytest.raises(Killed):
            await bench.letters.purge(letter.id)
    assert (bench.parked(), bench.blob_keys()) == ({letter.id}, [])
    assert await bench.letters.purge(letter.id)
    assert bench.parked() == set()
    assert bench.queue.get(letter.id) is None


async def test_a_purge_between_redrive_and_retirement_brings_nothing_back(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A record that was purged meanwhile must not come back as a field without an owner."""
    letter = bench.bury()
    retire: Callable[..., object] = bench.letters.retire

    async def after_a_purge(*args: object, **named: object) -> None:
        assert await bench.letters.purge(letter.id)
        await retire(*args, **named)  # type: ignore[misc]

    monkeypatch.setattr(bench.letters, "retire", after_a_purge)
    await bench.redriver.redrive(EVERY, limit=10)
    assert bench.client.exists(keys.job(letter.id), keys.journal(letter.id)) == 0
    assert len(bench.queued()) == 1


async def test_neither_touches_a_job_that_lives_or_was_redriven(bench: Bench) -> None:
    letter = bench.bury()
    (outcome,) = (await bench.redriver.redrive(EVERY, limit=10)).outcomes
    for job_id in (letter.id, outcome.job_id):
        assert not await bench.letters.purge(job_id)
        assert await bench.letters.find(job_id) is None
    named = DeadLetterFilter(ids=(letter.id, outcome.job_id))
    page = await bench.redriver.redrive(named, limit=10)
    assert page.outcomes[0] == Redriven(letter.id, outcome.job_id)
    assert page.outcomes[1].error is not None
    assert bench.queued() == {outcome.job_id}
