"""The worker while the blob store is away: what needs no blob goes on, and what needs one is done later."""

import os
from pathlib import Path

import pytest

from headrace.contract.generation import FrozenRequest, Sampling
from headrace.contract.ids import new_job_id
from headrace.contract.job import Job, JobClass, Kind, State
from headrace.queue.redis import RedisQueue
from headrace.settings import BlobSettings, QueueSettings, Settings
from headrace.store import keys
from headrace.store.journal import Journal
from headrace.store.payloads import Payloads, open_payloads
from tests.integration.workers.fleet import Fleet, eventually
from workers.inference import prompts
from workers.inference.worker import InferenceWorker

QUICK = {"lease_ms": 2000, "renew_ms": 100, "beat_ms": 100, "reap_ms": 100}


def settings(fleet: Fleet, shelf: Path) -> Settings:
    blobs = BlobSettings(url=str(shelf), threshold_bytes=1000)
    return fleet.settings("fake:", queue=QUICK).model_copy(update={"blobs": blobs})


def test_a_result_without_a_place_is_finished_by_the_next_worker(fleet: Fleet, tmp_path: Path) -> None:
    shelf = tmp_path / "shelf"
    shelf.write_text("no folder")
    with fleet.worker(settings(fleet, shelf)) as worker:
        large = fleet.submit(worker, "large", 300)
        eventually(lambda: fleet.offset(large) == 300, "all tokens journaled")
        small = fleet.submit(worker, "small", 20)
        assert fleet.ended(small).state is State.SUCCEEDED
        assert fleet.get(large).state is State.RUNNING
    assert fleet.get(large).state is State.QUEUED
    shelf.unlink()
    with fleet.worker(settings(fleet, shelf)):
        job = fleet.ended(large)
    assert (job.state, job.retries, job.deaths_total) == (State.SUCCEEDED, 0, 0)
    assert job.result_ref.startswith(f"blob:results/{large}.")
    result = Journal(fleet.client, open_payloads(settings(fleet, shelf))).result(large)
    assert result is not None
    assert result[0].token_ids == fleet.token_ids(large)


def shelved_job(worker: InferenceWorker, payloads: Payloads) -> Job:
    """A job whose prompt of 500 ids lies in the blob store, as its record says."""
    ready = eventually(lambda: worker.ready, "engine ready")
    return payloads.shelve_prompt(
        Job(
            id=new_job_id(),
            model="fake",
            lane=worker.lane,
            revision=ready.facts.revision,
            job_class=JobClass.STANDARD,
            kind=Kind.COMPLETION,
            request=FrozenRequest(tuple(b"long " * 100), Sampling(seed=7), 20),
        )
    )


def lease_end(fleet: Fleet, job: Job) -> float:
    return fleet.client.zscore(keys.LEASES, job.id) or 0.0


def test_a_prompt_that_cannot_be_read_now_is_read_later(
    fleet: Fleet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prompts, "REST_S", 0.5)
    shelf = tmp_path / "shelf"
    with fleet.worker(settings(fleet, shelf)) as worker:
        shelved = shelved_job(worker, open_payloads(settings(fleet, shelf)))
        shelf.rename(tmp_path / "away")
        assert shelved.prompt_ref
        # The record says where the prompt lies; the queue would put it there anew.
        queue = RedisQueue(fleet.client, QueueSettings(**QUICK).timing())
        queue.accept(shelved)
        eventually(lambda: fleet.get(shelved.id).attempt >= 2, "claimed, given back and claimed again")
        other = fleet.submit(worker, "other", 20)
        assert fleet.ended(other).state is State.SUCCEEDED
        (tmp_path / "away").rename(shelf)
        ended = fleet.ended(shelved.id)
    assert (ended.state, ended.retries, ended.deaths_total) == (State.SUCCEEDED, 0, 0)
    assert ended.usage is not None
    assert ended.usage.prompt_tokens == 500


def test_a_read_that_hangs_costs_no_job_its_lease(fleet: Fleet, tmp_path: Path) -> None:
    shelf = tmp_path / "shelf"
    payloads = open_payloads(settings(fleet, shelf))
    queue = RedisQueue(fleet.client, QueueSettings(**QUICK).timing())
    with fleet.worker(settings(fleet, shelf)) as worker:
        worker.pause(True)
        slow, cancelled, lost = (shelved_job(worker, payloads) for _ in range(3))
        blob, unwanted = (shelf / "prompts" / job.id for job in (slow, cancelled))
        content = blob.read_bytes()
        for path in (blob, unwanted):
            path.unlink()
            os.mkfifo(path)  # opening it waits for somebody who writes
        (shelf / "prompts" / lost.id).unlink()
        for job in (slow, cancelled, lost):
            queue.accept(job)
        other = fleet.submit(worker, "other", 300)
        worker.pause(False)
        assert fleet.ended(other).state is State.SUCCEEDED
        failed = fleet.ended(lost.id)
        eventually(lambda: worker.held == 2, "two prompts are being read")
        queue.cancel(cancelled.id)
        eventually(lambda: worker.held == 1, "the cancelled job is held no longer")
        until = lease_end(fleet, slow)
        eventually(lambda: lease_end(fleet, slow) > until + 500, "renewed several times")
        unwanted.write_bytes(b"")
        blob.write_bytes(content)
        ended = fleet.ended(slow.id)
    assert (ended.state, ended.attempt, ended.retries) == (State.SUCCEEDED, 1, 0)
    assert fleet.get(other).attempt == 1
    assert failed.state is State.FAILED
    assert failed.error is not None
    assert failed.error.code == "blob_not_found"
    assert f"The prompt of {lost.id} is lost" in failed.error.message
    assert failed.usage is not None
    assert failed.usage.prompt_tokens == 500
