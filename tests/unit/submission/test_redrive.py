"""Redrive and purge on a real Redis, with prompts in a blob store: killed anywhere, nothing is lost or done twice."""

import asyncio
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
import redis
import redis.asyncio

from headrace.contract.dead_letter_query import DeadLetterFilter
from headrace.contract.errors import BlobsUnavailable, ContextLengthExceeded, ErrorInfo, QueueFull, RevisionGone
from headrace.contract.generation import FrozenRequest, Sampling, Usage
from headrace.contract.ids import new_job_id
from headrace.contract.job import Fallback, Job, JobClass, Kind, Past, State
from headrace.queue.async_redis import AsyncRedisQueue
from headrace.queue.base import AcceptReply, Append, ClaimRequest, Outcome, ReapRequest, Timing
from headrace.queue.redis import RedisQueue
from headrace.store import keys
from headrace.store.async_payloads import AsyncPayloads
from headrace.store.blobs_folder import FolderBlobs
from headrace.store.cards import CardBook, Release
from headrace.store.dead_letters import DeadLetters
from headrace.store.payloads import Payloads
from headrace.submission.idempotency import check_key
from headrace.submission.redrive import Redriven, Redriver, fresh, idem_key_of, release_for
from tests.unit.submission.announced import CARD, announce

LANE = "small@stable"
OTHER = Fallback("other", "other@stable", "r9", FrozenRequest(tuple(range(50)), Sampling(seed=7), 9))
EVERY = DeadLetterFilter()


class Killed(BaseException):
    """The process is gone at this point."""


class Bench:
    """Dead jobs on a real Redis; prompts of more than 40 bytes lie in a folder."""

    def __init__(self, client: redis.Redis, async_client: redis.asyncio.Redis, folder: Path) -> None:
        self.client = client
        self.blobs = FolderBlobs(folder)
        self.payloads = Payloads(self.blobs, 40)
        self.queue = RedisQueue(client, Timing(), payloads=self.payloads)
        awaited = AsyncPayloads(self.payloads)
        self.letters = DeadLetters(async_client, awaited)
        self.async_queue = AsyncRedisQueue(async_client, Timing(), payloads=awaited)
        self.told: list[Job] = []
        self.redriver = Redriver(
            self.async_queue, CardBook(async_client, ttl_s=0), self.letters, awaited, Timing(), self.told.append
        )

    def bury(self, prompt: int = 4, **fields: object) -> Job:
        """A job that killed three engines."""
        request = FrozenRequest(tuple(range(prompt)), Sampling(seed=7, temperature=0.3), 16, ("x",))
        job = Job(
            id=new_job_id(),
            model="small",
            lane=LANE,
            revision=CARD.revision,
            job_class=JobClass.BATCH,
            kind=Kind.CHAT,
            request=request,
            traceparent="00-trace",
            metadata={"row": "7"},
        )
        self.queue.accept(replace(job, **fields))  # type: ignore[arg-type]
        for _ in range(3):
            asked = ClaimRequest((LANE,), "w_1", CARD.revision, "d", 1_000, 1_000, 1)
            (claimed,) = self.queue.claim(asked)
            self.queue.append([Append(claimed.lease)])
            self.queue.reap(ReapRequest("w_1", died=True))
        return self.get(job.id)

    def get(self, job_id: str) -> Job:
        job = self.queue.get(job_id)
        assert job is not None
        return job

    def parked(self) -> set[str]:
        return self._members(keys.dlq(LANE))

    def queued(self) -> set[str]:
        return self._members(keys.lane(LANE, "batch"))

    def _members(self, key: str) -> set[str]:
        members: Any = self.client.zrange(key, 0, -1)
        return {member.decode() for member in members}

    def blob_keys(self) -> list[str]:
        return [blob.key for blob in self.blobs.listing()]


@pytest.fixture
def bench(client: redis.Redis, async_client: redis.asyncio.Redis, tmp_path: Path) -> Bench:
    announce(client)
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


async def test_what_cannot_be_redriven_is_left_and_the_others_go_on(bench: Bench) -> None:
    gone, lost, fine = bench.bury(), bench.bury(40), bench.bury()
    bench.client.hset(keys.job(gone.id), "revision", "r0")
    bench.blobs.delete(f"prompts/{lost.id}")
    page = await bench.redriver.redrive(EVERY, limit=10)
    codes = {outcome.letter_id: outcome.error and outcome.error.code for outcome in page.outcomes}
    assert codes == {gone.id: "revision_gone", lost.id: "blob_not_found", fine.id: None}
    assert bench.parked() == {gone.id, lost.id}


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


class Killer:
    """Kills this process at its n-th call to Redis, before the server has heard of it or before its answer is read."""

    def __init__(self, client: redis.asyncio.Redis, patch: pytest.MonkeyPatch) -> None:
        self._call: Any = client.execute_command
        self._left, self._heard = 0, False
        patch.setattr(client, "execute_command", self._watched)

    def at(self, call: int, *, heard: bool) -> None:
        self._left, self._heard = call, heard

    async def _watched(self, *args: Any, **named: Any) -> Any:
        self._left -= 1
        if self._left == 0 and not self._heard:
            raise Killed
        answer = await self._call(*args, **named)
        if self._left == 0:
            raise Killed
        return answer


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
