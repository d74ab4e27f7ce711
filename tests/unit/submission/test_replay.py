"""Replay: what of the first job the new one has, whom it is for, and where its large prompt lies."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import redis
import redis.asyncio

from headrace.contract.errors import BlobNotFound, InvalidRequest, RevisionGone
from headrace.contract.generation import FrozenRequest, Sampling, Usage
from headrace.contract.job import Job, JobClass, Kind, State
from headrace.queue.async_redis import AsyncRedisQueue
from headrace.queue.base import Timing
from headrace.store.async_payloads import AsyncPayloads
from headrace.store.blobs_folder import FolderBlobs
from headrace.store.cards import CardBook, Release
from headrace.store.payloads import Payloads
from headrace.submission.replay import Replayer, again, digest_of, lane_for
from headrace.submission.submit import Submitter
from tests.unit.submission.announced import CARD, announce

ENDED = Job(
    id="job_01hzzzzzzzzzzzzzzzzzzzzzzz",
    model="small",
    lane="small@stable",
    revision=CARD.revision,
    job_class=JobClass.BATCH,
    kind=Kind.COMPLETION,
    request=FrozenRequest(tuple(range(40)), Sampling(seed=7, temperature=0.3), 16, ("x",), logprobs=2),
    tenant="mine",
    state=State.DEAD,
    digest="d2",
    digests=("d1", "d2"),
    attempt=3,
    deaths_total=3,
    seq=9,
    usage=Usage(40, 5),
    deadline_at=5,
    idem_key="k",
    metadata={"a": "b"},
)


class Bench:
    """Prompts of more than 40 bytes lie in a folder."""

    def __init__(self, async_client: redis.asyncio.Redis, folder: Path) -> None:
        self.blobs = FolderBlobs(folder)
        self.payloads = AsyncPayloads(Payloads(self.blobs, 40))
        self.queue = AsyncRedisQueue(async_client, Timing(), payloads=self.payloads)
        cards = CardBook(async_client, ttl_s=0)
        self.replayer = Replayer(Submitter(self.queue, cards), cards, self.payloads)

    async def shelved(self) -> Job:
        """As a record gives it: the prompt lies elsewhere."""
        job = await self.payloads.shelve_prompt(ENDED)
        return replace(job, request=replace(job.request, prompt_ids=()))


@pytest.fixture
def bench(client: redis.Redis, async_client: redis.asyncio.Redis, tmp_path: Path) -> Iterator[Bench]:
    announce(client)
    bench = Bench(async_client, tmp_path)
    yield bench
    bench.payloads.close()


def test_all_that_was_asked_and_nothing_of_what_became_of_it() -> None:
    new = again(ENDED, "small@canary", digest="d1", deadline_ms=90, idem_key="other")
    assert new.id != ENDED.id
    fresh = replace(
        ENDED,
        id=new.id,
        lane="small@canary",
        state=State.ACCEPTED,
        digest="",
        digests=(),
        attempt=0,
        deaths_total=0,
        seq=0,
        usage=None,
        deadline_at=90,
        idem_key="other",
        replay_of=ENDED.id,
        digest_wanted="d1",
        metadata={"a": "b", "replay_of": ENDED.id},
    )
    assert new == fresh
    assert again(ENDED, "l", digest="", job_class=JobClass.INTERACTIVE).job_class is JobClass.INTERACTIVE
    several = replace(ENDED, request=replace(ENDED.request, n=3))
    assert again(several, "l", digest="").next_offset == (0, 0, 0)


def test_the_digest_it_was_made_with() -> None:
    assert digest_of(ENDED) == "d1"
    assert digest_of(replace(ENDED, digests=())) == "d2"  # from a record of an older version
    assert digest_of(replace(ENDED, digests=(), digest="")) == ""


def test_the_lane_that_serves_the_revision() -> None:
    stable, canary = Release("small@stable", CARD), Release("small@canary", CARD)
    other = Release("big@stable", replace(CARD, id="big"))
    assert lane_for(ENDED, [other, canary, stable]) == "small@stable"
    newer = Release("small@stable", replace(CARD, revision="r2"))
    assert lane_for(ENDED, [newer, canary]) == "small@canary"
    with pytest.raises(RevisionGone, match="r1"):
        lane_for(ENDED, [newer, other])


async def test_a_large_prompt_is_fetched_and_shelved_anew(bench: Bench) -> None:
    submitted = await bench.replayer.replay(await bench.shelved())
    job = await bench.queue.get(submitted.job_id)
    assert job is not None
    assert job.prompt_ref == f"blob:prompts/{job.id}"
    assert (await bench.payloads.fetch_prompt(job)).request == ENDED.request
    assert (job.state, job.digest_wanted, job.tenant) == (State.QUEUED, "d1", "mine")


async def test_a_prompt_that_is_lost_is_said(bench: Bench) -> None:
    job = await bench.shelved()
    bench.blobs.delete(f"prompts/{job.id}")
    with pytest.raises(BlobNotFound):
        await bench.replayer.replay(job)


@pytest.mark.parametrize("fields", [{"state": State.RUNNING}, {"digest": "", "digests": ()}])
async def test_without_anything_to_hold_it_against_there_is_none(
    bench: Bench, client: redis.Redis, fields: dict[str, State]
) -> None:
    with pytest.raises(InvalidRequest, match="nothing"):
        await bench.replayer.replay(replace(ENDED, **fields))  # type: ignore[arg-type]
    assert not list(client.scan_iter("hr:job:*"))
