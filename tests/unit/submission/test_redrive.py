"""Redrive on a real Redis, with prompts in a blob store: what of a dead job the new one has, and what is left alone."""

from dataclasses import fields, replace
from pathlib import Path

import pytest
import redis
import redis.asyncio

from headrace.contract.dead_letter_query import DeadLetterFilter, Place
from headrace.contract.errors import BlobsUnavailable, ContextLengthExceeded, ErrorInfo, QueueFull, RevisionGone
from headrace.contract.generation import FrozenRequest, Sampling, Usage
from headrace.contract.ids import new_job_id
from headrace.contract.job import Job, JobClass, Kind, Past, State
from headrace.queue.base import AcceptReply, Outcome, Timing
from headrace.store import keys
from headrace.store.cards import Release
from headrace.submission.idempotency import check_key
from headrace.submission.redrive import Redriven, fresh, idem_key_of, release_for
from tests.unit.submission.announced import CARD
from tests.unit.submission.dead_letter_bench import EVERY, LANE, OTHER, Bench


@pytest.fixture
def bench(client: redis.Redis, async_client: redis.asyncio.Redis, tmp_path: Path) -> Bench:
    return Bench(client, async_client, tmp_path / "blobs")


def test_a_fresh_job_has_the_request_and_none_of_the_history() -> None:
    letter = Job(
        id=new_job_id(),
        model="m",
        lane="m@canary",
        revision="r1",
        job_class=JobClass.BATCH,
        kind=Kind.COMPLETION,
        request=FrozenRequest((1, 2, 3), Sampling(seed=7), 8),
        tenant="acme",
        state=State.DEAD,
        epoch=9,
        digest="d",
        attempt=3,
        retries=1,
        deaths=3,
        deaths_total=3,
        death_offset=4,
        seq=12,
        next_offset=(4,),
        created_at=1,
        ended_at=2,
        deadline_at=3,
        error=ErrorInfo("poison", ""),
        history=(Past(1, "w", "worker_died", "", 1, 4),),
        usage=Usage(3, 4),
        prompt_ref="blob:prompts/x",
        idem_key="mine",
        replay_of="job_r",
        digest_wanted="d9",
        ledger_receipt="x",
        traceparent="00-t",
        metadata={"a": "b"},
        fallback=OTHER,
        fallback_of="large",
    )
    job = fresh(letter, "m@stable", 5_000)
    expected = Job(
        id=job.id,
        model="m",
        lane="m@stable",
        revision="r1",
        job_class=JobClass.BATCH,
        kind=Kind.COMPLETION,
        request=letter.request,
        tenant="acme",
        deadline_at=5_000,
        idem_key=idem_key_of(letter.id),
        redrive_of=letter.id,
        replay_of="job_r",
        digest_wanted="d9",
        traceparent="00-t",
        metadata={"a": "b"},
        fallback=OTHER,
        fallback_of="large",
    )
    assert job == expected
    assert job.id != letter.id


def test_no_client_can_send_the_key_of_a_redrive() -> None:
    with pytest.raises(Exception, match="Idempotency-Key"):
        check_key(idem_key_of(new_job_id()))


async def test_the_lane_is_one_whose_card_has_the_revision(bench: Bench) -> None:
    letter = bench.bury()
    stable, canary = Release(LANE, CARD), Release("small@canary", CARD)
    other = Release("other@stable", replace(CARD, id="other"))
    assert release_for(letter, [canary, stable]) is stable
    moved = Release(LANE, replace(CARD, revision="r2"))
    assert release_for(letter, [moved, canary]) is canary
    with pytest.raises(RevisionGone, match="r1"):
        release_for(letter, [moved, other])
    smaller = Release(LANE, replace(CARD, max_kv_tokens=19))
    with pytest.raises(ContextLengthExceeded, match=r"20 tokens.*holds more than 19"):
        release_for(letter, [smaller])


@pytest.mark.parametrize("prompt", [4, 40])
async def test_a_redriven_job_runs_on_its_own_copy_of_the_prompt(bench: Bench, prompt: int) -> None:
    old = bench.bury(prompt)
    page = await bench.redriver.redrive(EVERY, limit=10)
    (outcome,) = page.outcomes
    new = bench.get(outcome.job_id)
    assert bench.payloads.fetch_prompt(new).request == bench.payloads.fetch_prompt(old).request
    assert (new.redrive_of, bench.get(old.id).redriven_as) == (old.id, new.id)
    assert [job.id for job in bench.told] == [new.id]
    assert bench.blob_keys() == ([f"prompts/{old.id}", f"prompts/{new.id}"] if prompt == 40 else [])
    assert (bench.parked(), bench.queued()) == (set(), {new.id})
    timing = Timing()
    assert 0 < bench.client.pttl(keys.job(old.id)) <= timing.result_ttl_ms
    assert 0 < bench.client.pttl(keys.journal(old.id)) <= timing.journal_ttl_ms


def test_every_field_of_a_record_is_either_taken_along_or_left() -> None:
    """A field that is new must be thought of in `fresh`."""
    asked = {"model", "revision", "job_class", "kind", "request", "tenant", "fallback", "fallback_of", "replay_of"}
    asked |= {"digest_wanted", "traceparent", "metadata"}
    new = {"id", "lane", "deadline_at", "idem_key", "redrive_of", "schema"}
    became = {"state", "epoch", "lease_id", "owner", "digest", "digests", "attempt", "retries", "deaths"}
    became |= {"deaths_total", "death_offset", "seq", "next_offset", "kv_tokens", "place", "created_at", "queued_at"}
    became |= {"leased_at", "first_token_at", "ended_at", "error", "history", "usage", "prompt_ref", "result_ref"}
    became |= {"redriven_as", "ledger_receipt"}
    assert {field.name for field in fields(Job)} == asked | new | became


async def test_what_cannot_be_redriven_is_left_and_the_others_go_on(bench: Bench) -> None:
    gone, lost, fine = bench.bury(), bench.bury(40), bench.bury()
    bench.client.hset(keys.job(gone.id), "revision", "r0")
    bench.blobs.delete(f"prompts/{lost.id}")
    page = await bench.redriver.redrive(EVERY, limit=10)
    codes = {outcome.letter_id: outcome.error and outcome.error.code for outcome in page.outcomes}
    assert codes == {gone.id: "revision_gone", lost.id: "blob_not_found", fine.id: None}
    assert bench.parked() == {gone.id, lost.id}


@pytest.mark.parametrize("early", [False, True])
async def test_what_dies_again_is_no_part_of_the_walk_that_redrove_it(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, early: bool
) -> None:
    """Neither with a page that ended at its limit nor with one that a full queue ended early."""
    ids = [bench.bury().id for _ in range(4)]
    accept, room = bench.async_queue.accept, [2]

    async def full(job: Job, *, body_hash: str = "") -> AcceptReply:
        room[0] -= 1
        return AcceptReply(Outcome.FULL, job.id) if room[0] < 0 else await accept(job, body_hash=body_hash)

    if early:
        monkeypatch.setattr(bench.async_queue, "accept", full)
    redriven: list[str] = []
    page = await bench.redriver.redrive(EVERY, limit=2 + early)
    for _ in range(6):
        redriven += [outcome.letter_id for outcome in page.outcomes]
        room[0] = 2
        bench.kill(len(page.outcomes))
        if page.after is None:
            break
        page = await bench.redriver.redrive(EVERY, limit=1 + early, after=Place.parse(str(page.after)))
    assert redriven == ids
    assert len(bench.parked()) == 4
    assert bench.parked().isdisjoint(ids)


async def test_named_ones_are_redriven_whenever_they_died(bench: Bench) -> None:
    """A clock that was set back would hide them, and they are no more than were named."""
    letter = bench.bury()
    later = bench.client.time()[0] * 1000 + 60_000
    bench.client.zadd(keys.dlq(LANE), {letter.id: later})
    bench.client.hset(keys.job(letter.id), "ended_at", later)
    assert (await bench.redriver.redrive(EVERY, limit=10)).outcomes == ()
    page = await bench.redriver.redrive(DeadLetterFilter(ids=(letter.id,)), limit=10)
    assert [outcome.letter_id for outcome in page.outcomes] == [letter.id]


async def test_a_full_queue_ends_a_page_early_and_the_cursor_goes_on_there(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    letters = [bench.bury() for _ in range(3)]
    accept, left = bench.async_queue.accept, [1]

    async def full(job: Job, *, body_hash: str = "") -> AcceptReply:
        if not left:
            return AcceptReply(Outcome.FULL, job.id)
        left.pop()
        return await accept(job, body_hash=body_hash)

    with monkeypatch.context() as patch:
        patch.setattr(bench.async_queue, "accept", full)
        page = await bench.redriver.redrive(EVERY, limit=10)
        assert [outcome.letter_id for outcome in page.outcomes] == [letters[0].id]
        with pytest.raises(QueueFull):
            await bench.redriver.redrive(EVERY, limit=10, after=page.after)
    rest = await bench.redriver.redrive(EVERY, limit=10, after=page.after)
    assert [outcome.letter_id for outcome in rest.outcomes] == [letter.id for letter in letters[1:]]
    assert rest.after is None


async def test_a_dry_run_and_a_blob_store_that_is_away_change_nothing(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    letter = bench.bury(40)
    before = bench.client.hgetall(keys.job(letter.id))
    assert (await bench.redriver.redrive(EVERY, limit=10, dry_run=True)).outcomes == (Redriven(letter.id),)

    def away(*_: object) -> None:
        raise BlobsUnavailable("The disk is away.")

    monkeypatch.setattr(bench.blobs, "read", away)
    monkeypatch.setattr(bench.blobs, "delete", away)
    with pytest.raises(BlobsUnavailable):
        await bench.redriver.redrive(EVERY, limit=10)
    with pytest.raises(BlobsUnavailable):
        await bench.letters.purge(letter.id)
    assert bench.client.hgetall(keys.job(letter.id)) == before
    assert (bench.parked(), bench.queued()) == ({letter.id}, set())
