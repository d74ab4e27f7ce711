"""The worker with a real child process and the fake engine: whole lives of jobs, with faults on the way."""

import os
import signal

from headrace.contract.generation import Sampling
from headrace.contract.job import State
from tests.integration.workers.fleet import Fleet, eventually
from workers.inference.fake_engine import token_at
from workers.inference.messages import AddRequest

QUICK = {"lease_ms": 2000, "renew_ms": 200, "beat_ms": 100, "reap_ms": 100}


def expected(prompt: str, count: int, seed: int = 7) -> tuple[int, ...]:
    request = AddRequest("", tuple(prompt.encode()), Sampling(seed=seed), 0, count)
    return tuple(token_at(request, offset) for offset in range(count))


def test_jobs_run_to_their_end(fleet: Fleet) -> None:
    with fleet.worker(fleet.settings("fake:", queue=QUICK)) as worker:
        jobs = {fleet.submit(worker, f"prompt {i}", 20 + i): f"prompt {i}" for i in range(20)}
        for index, (job_id, prompt) in enumerate(jobs.items()):
            job = fleet.ended(job_id)
            assert job.state is State.SUCCEEDED
            assert fleet.token_ids(job_id) == expected(prompt, 20 + index)
            assert fleet.types(job_id) == ["accepted", "started", "delta", "completed"]
            assert job.usage is not None
            assert job.usage.completion_tokens == 20 + index
    assert fleet.client.scard(f"hr:held:{worker.id}") == 0


def test_a_killed_child_costs_no_token(fleet: Fleet) -> None:
    with fleet.worker(fleet.settings("fake:speed=100", queue=QUICK)) as worker:
        job_id = fleet.submit(worker, "kill me", 150)
        eventually(lambda: fleet.running(job_id, 30), "tokens")
        assert worker.engine_pid is not None
        os.kill(worker.engine_pid, signal.SIGKILL)
        job = fleet.ended(job_id)
        assert job.state is State.SUCCEEDED
        assert job.deaths_total == 1
        assert fleet.token_ids(job_id) == expected("kill me", 150)
        assert fleet.types(job_id) == ["accepted", "started", "delta", "resumed", "delta", "completed"]


def test_a_drain_gives_everything_back_within_a_second(fleet: Fleet) -> None:
    with fleet.worker(fleet.settings("fake:speed=50", queue=QUICK)) as worker:
        job_id = fleet.submit(worker, "drain me", 400)
        eventually(lambda: fleet.running(job_id), "tokens")
        worker.request_stop()
        assert worker.join(1.5)
        job = fleet.get(job_id)
        assert job.state is State.QUEUED
        assert job.deaths_total == job.retries == 0
        have = fleet.offset(job_id)
        assert have > 0
    with fleet.worker(fleet.settings("fake:", queue=QUICK)) as worker:
        assert fleet.ended(job_id).state is State.SUCCEEDED
        assert fleet.token_ids(job_id) == expected("drain me", 400)


def test_a_cancelled_job_leaves_the_engine(fleet: Fleet) -> None:
    with fleet.worker(fleet.settings("fake:speed=50", queue=QUICK)) as worker:
        job_id = fleet.submit(worker, "cancel me", 1000)
        eventually(lambda: fleet.running(job_id), "tokens")
        fleet.queue.cancel(job_id)
        eventually(lambda: worker.held == 0, "job dropped", 1.0)
        seen = worker.metrics.snapshot()["counters"]["headrace_engine_decoded_tokens_total"]
        other = fleet.submit(worker, "next", 10)
        fleet.ended(other)
        after = worker.metrics.snapshot()["counters"]["headrace_engine_decoded_tokens_total"]
        assert after - seen <= 10 + 5


def test_an_engine_error_is_retried_and_then_given_up(fleet: Fleet) -> None:
    with fleet.worker(fleet.settings("fake:error_at=5,poison=33", queue=QUICK)) as worker:
        job_id = fleet.submit(worker, "! fails", 20)
        fine = fleet.submit(worker, "is fine", 20)
        assert fleet.ended(fine).state is State.SUCCEEDED
        eventually(lambda: fleet.get(job_id).retries == 1, "first retry")
        assert fleet.token_ids(job_id) == expected("! fails", 5)
        assert "retrying" in fleet.types(job_id)
        fleet.queue.cancel(job_id)


def test_a_hung_engine_is_killed_and_counts_as_a_death(fleet: Fleet) -> None:
    settings = fleet.settings("fake:hang_at=20,poison=33", queue=QUICK, progress_timeout_s=0.5)
    with fleet.worker(settings) as worker:
        job_id = fleet.submit(worker, "! hangs", 40)
        job = fleet.ended(job_id)
        assert job.state is State.DEAD
        assert job.error is not None
        assert job.error.code == "poison"
        assert job.deaths_total == 3
        assert fleet.token_ids(job_id) == expected("! hangs", 20)
        assert fleet.ended(fleet.submit(worker, "after it", 10)).state is State.SUCCEEDED


def test_a_stop_string_cuts_the_tokens(fleet: Fleet) -> None:
    text = bytes(expected("stop me", 100)).decode()
    stop = text[40:43]
    end = text.index(stop) + len(stop)
    with fleet.worker(fleet.settings("fake:", queue=QUICK)) as worker:
        job_id = fleet.submit(worker, "stop me", 100, stop=(stop,))
        assert fleet.ended(job_id).state is State.SUCCEEDED
        assert fleet.token_ids(job_id) == expected("stop me", end)
        (choice,) = fleet.journal.result(job_id) or ()
        assert choice.finish_reason == "stop"
