"""Large prompts and results through the real Redis queue and both blob stores, and what becomes of them in between."""

import os
from dataclasses import replace
from pathlib import Path

import pytest
import redis

from headrace.contract.errors import BlobDamaged, BlobNotFound, BlobsUnavailable, SetupError
from headrace.contract.job import Job, State
from headrace.queue.async_redis import AsyncRedisQueue
from headrace.queue.base import Append, Outcome
from headrace.queue.redis import RedisQueue
from headrace.queue.verbs import pack
from headrace.settings import BlobSettings, PathSettings, Settings
from headrace.store import keys
from headrace.store.async_payloads import AsyncPayloads
from headrace.store.blob_sweep import GRACE_MS, Swept, sweep
from headrace.store.blobs import BlobStore
from headrace.store.blobs_bucket import Bucket
from headrace.store.blobs_folder import FolderBlobs
from headrace.store.blobs_s3 import S3Blobs
from headrace.store.connection import connect_async
from headrace.store.journal import AsyncJournal, Journal
from headrace.store.payloads import Payloads, open_payloads
from tests.contracts.bench import TIMING, claim_request, delta, make_job, success
from tests.moto_server import S3Server, s3_server, s3_url
from tests.redis_server import RedisServer

__all__ = ["s3_server", "s3_url"]

LONG = tuple(range(1000))


@pytest.fixture(params=["folder", "s3"])
def payloads(request: pytest.FixtureRequest, tmp_path: Path) -> Payloads:
    if request.param == "s3":
        server: S3Server = request.getfixturevalue("s3_server")
        return Payloads(S3Blobs(server.bucket, request.getfixturevalue("s3_url").rpartition("/")[2]), 1000)
    return open_payloads(Settings(paths=PathSettings(data_dir=tmp_path), blobs=BlobSettings(threshold_bytes=1000)))


@pytest.fixture
def folder(tmp_path: Path) -> Payloads:
    return Payloads(FolderBlobs(tmp_path / "blobs"), 1000)


def store_of(payloads: Payloads) -> BlobStore:
    assert payloads.blobs is not None
    return payloads.blobs


def key_names(payloads: Payloads) -> list[str]:
    return [blob.key for blob in store_of(payloads).listing()]


def run(queue: RedisQueue, job: Job, ids: tuple[int, ...] = LONG) -> Job:
    """Accept, claim and journal to the end; the claimed job, ready to finish."""
    queue.accept(job)
    [claimed] = queue.claim(claim_request())
    [reply] = queue.append([Append(claimed.lease, (delta(0, ids, "stop"),))])
    assert reply.outcome is Outcome.OK
    return claimed


def record(queue: RedisQueue, job_id: str) -> Job:
    job = queue.get(job_id)
    assert job is not None
    return job


def test_a_large_result_lies_in_the_blob_store(client: redis.Redis, payloads: Payloads) -> None:
    queue = RedisQueue(client, TIMING, payloads=payloads)
    claimed = run(queue, make_job(max_tokens=2000))
    assert queue.finish(claimed.lease, success(*LONG)).outcome is Outcome.OK
    job = record(queue, claimed.id)
    assert job.result_ref == f"blob:results/{job.id}.{job.epoch}"
    assert not client.exists(keys.result(job.id))
    result = Journal(client, payloads).result(job.id)
    assert result is not None
    assert result[0].token_ids == LONG


def test_a_small_one_stays_in_redis(client: redis.Redis, folder: Payloads) -> None:
    queue = RedisQueue(client, TIMING, payloads=folder)
    claimed = run(queue, make_job(), (1, 2, 3))
    queue.finish(claimed.lease, success(1, 2, 3))
    assert record(queue, claimed.id).result_ref == keys.result(claimed.id)
    assert key_names(folder) == []
    assert Journal(client, folder).result(claimed.id) == Journal(client).result(claimed.id)
    assert Journal(client).result(claimed.id) is not None


def test_a_finish_that_was_cut_off_is_said_again(client: redis.Redis, folder: Payloads) -> None:
    """Killed between the blob and the script; then its answer is lost too."""
    queue = RedisQueue(client, TIMING, payloads=folder)
    claimed = run(queue, make_job(max_tokens=2000))
    ending = success(*LONG)
    folder.shelve_result(claimed.lease, pack(ending))
    assert record(queue, claimed.id).state is State.RUNNING
    for _ in range(2):
        assert queue.finish(claimed.lease, ending).outcome is Outcome.OK
    result = Journal(client, folder).result(claimed.id)
    assert result is not None
    assert result[0].token_ids == LONG
    assert len(key_names(folder)) == 1


def test_a_worker_that_lost_its_lease_overwrites_nothing(client: redis.Redis, folder: Payloads) -> None:
    queue = RedisQueue(client, TIMING, payloads=folder)
    late = run(queue, make_job(max_tokens=2000))
    queue.release(late.lease)
    [claimed] = queue.claim(claim_request("w2"))
    queue.append([Append(claimed.lease)])
    assert queue.finish(claimed.lease, success(*LONG)).outcome is Outcome.OK
    assert queue.finish(late.lease, success(*reversed(LONG))).outcome is Outcome.TERMINAL
    result = Journal(client, folder).result(late.id)
    assert result is not None
    assert result[0].token_ids == LONG


@pytest.mark.parametrize(("loss", "error"), [("gone", BlobNotFound), ("damaged", BlobDamaged)])
def test_a_lost_result_is_told(client: redis.Redis, folder: Payloads, loss: str, error: type[BlobNotFound]) -> None:
    queue = RedisQueue(client, TIMING, payloads=folder)
    claimed = run(queue, make_job(max_tokens=2000))
    queue.finish(claimed.lease, success(*LONG))
    lose(folder, loss)
    with pytest.raises(error, match=f"The result of {claimed.id} is lost") as caught:
        Journal(client, folder).result(claimed.id)
    assert caught.value.status == (410 if error is BlobNotFound else 500)
    with pytest.raises(BlobsUnavailable, match="this process has none"):
        Journal(client).result(claimed.id)


def lose(payloads: Payloads, loss: str) -> None:
    blobs = store_of(payloads)
    assert isinstance(blobs, FolderBlobs)
    for key in key_names(payloads):
        if loss == "gone":
            blobs.delete(key)
        else:
            os.truncate(blobs.path_of(key), 150)


def test_while_the_store_is_away_nothing_is_finished_or_accepted(client: redis.Redis, s3_server: S3Server) -> None:
    away = Payloads(S3Blobs(Bucket("nowhere", endpoint_url=s3_server.endpoint_url), "p"), 1000)
    queue = RedisQueue(client, TIMING, payloads=away)
    claimed = run(queue, make_job(max_tokens=2000))
    with pytest.raises(BlobsUnavailable):
        queue.finish(claimed.lease, success(*LONG))
    assert record(queue, claimed.id).state is State.RUNNING
    large = make_job(prompt=500)
    with pytest.raises(BlobsUnavailable):
        queue.accept(large)
    assert queue.get(large.id) is None
    assert queue.finish(claimed.lease, replace(success(), state=State.FAILED)).outcome is Outcome.OK


def test_a_large_prompt_lies_in_the_blob_store(client: redis.Redis, payloads: Payloads) -> None:
    queue = RedisQueue(client, TIMING, payloads=payloads)
    job = make_job(prompt=700)
    queue.accept(job)
    assert record(queue, job.id).request.prompt_ids == ()
    assert client.hget(keys.job(job.id), "prompt_tokens") == b"700"
    [claimed] = queue.claim(claim_request())
    assert claimed.prompt_ref == f"blob:prompts/{job.id}"
    assert claimed.request.prompt_ids == ()
    assert payloads.fetch_prompt(claimed).request == job.request
    assert payloads.fetch_prompt(record(queue, job.id)).request == job.request


@pytest.mark.parametrize(("loss", "error"), [("gone", BlobNotFound), ("damaged", BlobDamaged)])
def test_a_lost_prompt_is_told(client: redis.Redis, folder: Payloads, loss: str, error: type[BlobNotFound]) -> None:
    queue = RedisQueue(client, TIMING, payloads=folder)
    job = make_job(prompt=700)
    queue.accept(job)
    lose(folder, loss)
    [claimed] = queue.claim(claim_request())
    with pytest.raises(error, match=f"The prompt of {job.id} is lost"):
        folder.fetch_prompt(claimed)


def test_a_claim_waits_for_no_blob(client: redis.Redis, folder: Payloads, tmp_path: Path) -> None:
    queue = RedisQueue(client, TIMING, payloads=folder)
    large, small = make_job(prompt=700), make_job()
    queue.accept(large)
    queue.accept(small)
    (tmp_path / "blobs").rename(tmp_path / "unmounted")
    assert {job.id for job in queue.claim(claim_request())} == {large.id, small.id}


async def test_the_awaited_twin(redis_server: RedisServer, client: redis.Redis, folder: Payloads) -> None:
    async_client = connect_async(redis_server.url)
    payloads = AsyncPayloads(folder)
    queue, journal = AsyncRedisQueue(async_client, TIMING, payloads=payloads), AsyncJournal(async_client, payloads)
    job = make_job(prompt=700, max_tokens=2000)
    await queue.accept(job)
    [claimed] = await queue.claim(claim_request())
    assert claimed.request.prompt_ids == ()
    assert await payloads.fetch_prompt(claimed) == replace(claimed, request=job.request)
    await queue.append([Append(claimed.lease, (delta(0, LONG, "stop"),))])
    assert (await queue.finish(claimed.lease, success(*LONG))).outcome is Outcome.OK
    result = await journal.result(job.id)
    assert result is not None
    assert result[0].token_ids == LONG
    lose(folder, "gone")
    with pytest.raises(BlobNotFound):
        await journal.result(job.id)
    payloads.close()
    await async_client.aclose()


def test_a_sweep_deletes_what_no_record_names(client: redis.Redis, payloads: Payloads) -> None:
    queue = RedisQueue(client, TIMING, payloads=payloads)
    done = run(queue, make_job(prompt=700, max_tokens=2000))
    queue.finish(done.lease, success(*LONG))
    gone, waiting = make_job(prompt=700), make_job(prompt=700)
    queue.accept(gone)
    queue.accept(waiting)
    client.delete(keys.job(gone.id))
    blobs = store_of(payloads)
    blobs.put(f"results/{done.id}.77", b"of an attempt that lost its lease")
    blobs.put("results/stranger.txt", b"not ours")
    now = next(blobs.listing("results/")).modified_at
    assert sweep(blobs, client, now) == Swept(seen=6, deleted=0)
    assert sweep(blobs, client, now + GRACE_MS * 2) == Swept(seen=6, deleted=2)
    assert key_names(payloads) == sorted(
        [
            "fleet",
            f"prompts/{done.id}",
            f"prompts/{waiting.id}",
            f"results/{done.id}.{done.epoch}",
            "results/stranger.txt",
        ]
    )


@pytest.mark.parametrize("redis_is", ["emptied", "another's"])
def test_a_redis_that_does_not_know_the_store_sweeps_nothing(
    client: redis.Redis, folder: Payloads, tmp_path: Path, redis_is: str
) -> None:
    queue, blobs = RedisQueue(client, TIMING, payloads=folder), store_of(folder)
    done = run(queue, make_job(prompt=700, max_tokens=2000))
    queue.finish(done.lease, success(*LONG))
    later = next(blobs.listing("results/")).modified_at + GRACE_MS * 2
    assert sweep(blobs, client, later) == Swept(seen=2)
    client.flushall()
    if redis_is == "another's":
        sweep(FolderBlobs(tmp_path / "theirs"), client, later)
    before = key_names(folder)
    for _ in range(2):
        with pytest.raises(SetupError, match="nothing in it is swept"):
            sweep(blobs, client, later)
    assert key_names(folder) == before
    blobs.delete("fleet")  # somebody has read what to do next, and wants that
    assert sweep(blobs, client, later) == Swept(seen=2, deleted=2)


def test_sweeps_of_one_fleet_agree_whichever_is_first(client: redis.Redis, folder: Payloads) -> None:
    for _ in range(2):
        assert sweep(store_of(folder), client, 0) == Swept()
        store_of(folder).delete("fleet")
    assert client.ttl(keys.FLEET) == -1
