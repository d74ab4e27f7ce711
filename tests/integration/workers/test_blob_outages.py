"""The worker while the blob store is away: what needs no blob goes on, and what needs one is done later."""

from pathlib import Path

from headrace.contract.generation import FrozenRequest, Sampling
from headrace.contract.ids import new_job_id
from headrace.contract.job import Job, JobClass, Kind, State
from headrace.queue.redis import RedisQueue
from headrace.settings import BlobSettings, QueueSettings, Settings
from headrace.store.journal import Journal
from headrace.store.payloads import open_payloads
from tests.integration.workers.fleet import Fleet, eventually

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


def test_a_prompt_that_cannot_be_read_now_is_read_later(fleet: Fleet, tmp_path: Path) -> None:
    shelf = tmp_path / "shelf"
    with fleet.worker(settings(fleet, shelf)) as worker:
        ready = eventually(lambda: worker.ready, "engine ready")
        job = Job(
            id=new_job_id(),
            model="fake",
            lane=worker.lane,
            revision=ready.facts.revision,
            job_class=JobClass.STANDARD,
            kind=Kind.COMPLETION,
            request=FrozenRequest(tuple(b"long " * 100), Sampling(seed=7), 20),
        )
        payloads = open_payloads(settings(fleet, shelf))
        shelved = payloads.shelve_prompt(job)
        shelf.rename(tmp_path / "away")
        assert shelved.prompt_ref
        # The record says where the prompt lies; the queue would put it there anew.
        queue = RedisQueue(fleet.client, QueueSettings(**QUICK).timing())
        queue.accept(shelved)
        eventually(lambda: fleet.get(job.id).attempt >= 2, "claimed, given back and claimed again")
        other = fleet.submit(worker, "other", 20)
        assert fleet.ended(other).state is State.SUCCEEDED
        (tmp_path / "away").rename(shelf)
        ended = fleet.ended(job.id)
    assert (ended.state, ended.retries, ended.deaths_total) == (State.SUCCEEDED, 0, 0)
    assert ended.usage is not None
    assert ended.usage.prompt_tokens == 500
