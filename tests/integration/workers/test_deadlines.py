"""A job's own deadline, wherever it meets the job; and an engine whose request does not get on."""

from headrace.contract.job import State
from tests.integration.workers.fleet import Fleet, eventually
from tests.integration.workers.test_fake_engine_runs import QUICK, expected
from workers.inference.worker import InferenceWorker


def pages(worker: InferenceWorker) -> float:
    return float(worker.metrics.snapshot()["gauges"]["headrace_engine_kv_pages_used"])


def test_a_deadline_that_passes_while_it_runs_ends_the_job_and_frees_its_pages(fleet: Fleet) -> None:
    with fleet.worker(fleet.settings("fake:speed=50", queue=QUICK)) as worker:
        job_id = fleet.submit(worker, "too late", 1900, deadline_ms=500)
        eventually(lambda: pages(worker) > 0, "pages")
        job = fleet.ended(job_id)
        assert (job.state, job.attempt, job.retries, job.deaths_total) == (State.EXPIRED, 1, 0, 0)
        assert fleet.types(job_id) == ["accepted", "started", "delta", "expired"]
        tokens = fleet.token_ids(job_id)
        assert tokens == expected("too late", len(tokens))
        eventually(lambda: worker.held == 0 and pages(worker) == 0, "pages freed", 2.0)


def test_a_deadline_that_passes_while_it_waits_ends_the_job_unrun(fleet: Fleet) -> None:
    with fleet.worker(fleet.settings("fake:speed=50", queue=QUICK, max_jobs=1)) as worker:
        first = fleet.submit(worker, "first", 1900)
        eventually(lambda: fleet.running(first), "tokens")
        second = fleet.submit(worker, "second", 10, deadline_ms=200)
        assert fleet.ended(second, 5.0).state is State.EXPIRED
        assert fleet.types(second) == ["accepted", "expired"]
        assert fleet.running(first)


def test_an_error_that_would_come_again_is_not_tried_again(fleet: Fleet) -> None:
    """The class of an error decides: a poisoned row or a bad grammar is the same on the next worker."""
    with fleet.worker(fleet.settings("fake:final_at=5,poison=33", queue=QUICK)) as worker:
        job_id = fleet.submit(worker, "! fails", 20)
        fine = fleet.submit(worker, "is fine", 20)
        job = fleet.ended(job_id)
        assert job.error is not None
        assert (job.state, job.error.code, job.retries, job.attempt) == (State.FAILED, "engine_error", 0, 1)
        assert fleet.token_ids(job_id) == expected("! fails", 5)
        assert fleet.ended(fine).state is State.SUCCEEDED
