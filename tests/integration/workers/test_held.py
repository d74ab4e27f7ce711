"""A worker that was held still writes nothing when it goes on, and an engine that was is replaced."""

import os
import signal
from pathlib import Path

import pytest

from headrace.contract.job import State
from tests.integration.workers.fleet import Fleet, eventually
from tests.integration.workers.held import JOBS, hold
from tests.integration.workers.processes import Processes
from tests.integration.workers.test_fake_engine_runs import QUICK, expected


@pytest.mark.parametrize("who", ["parent", "both"])
def test_a_worker_held_for_longer_than_its_leases_writes_not_one_token(fleet: Fleet, tmp_path: Path, who: str) -> None:
    held = hold(fleet, Processes(fleet, tmp_path), who, lease_ms=1_000)
    assert held.after == held.before
    assert held.left >= JOBS


def test_an_engine_held_for_longer_than_the_progress_timeout_is_replaced(fleet: Fleet) -> None:
    with fleet.worker(fleet.settings("fake:speed=100", queue=QUICK, progress_timeout_s=0.5)) as worker:
        job_id = fleet.submit(worker, "held", 150)
        eventually(lambda: fleet.running(job_id, 30), "tokens")
        held = worker.engine_pid
        assert held is not None
        os.kill(held, signal.SIGSTOP)
        job = fleet.ended(job_id)
        assert (job.state, job.attempt, job.deaths_total, job.retries) == (State.SUCCEEDED, 2, 1, 0)
        assert fleet.token_ids(job_id) == expected("held", 150)
        assert worker.engine_pid not in (held, None)


def test_an_engine_that_was_held_for_a_moment_goes_on(fleet: Fleet) -> None:
    with fleet.worker(fleet.settings("fake:speed=100", queue=QUICK)) as worker:
        job_id = fleet.submit(worker, "moment", 100)
        eventually(lambda: fleet.running(job_id, 20), "tokens")
        held = worker.engine_pid
        assert held is not None
        os.kill(held, signal.SIGSTOP)
        os.kill(held, signal.SIGCONT)
        job = fleet.ended(job_id)
        assert (job.state, job.attempt, job.deaths_total) == (State.SUCCEEDED, 1, 0)
        assert worker.engine_pid == held
