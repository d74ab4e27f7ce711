"""Every way in which a worker is told to go: its jobs go on elsewhere at once, uncounted, with the same tokens."""

import os
import signal
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from headrace.contract.events import Resumed
from headrace.contract.job import State
from headrace.store import keys
from headrace.store.beats import read_beats
from tests.integration.workers.fleet import Fleet, eventually
from tests.integration.workers.processes import Processes
from tests.integration.workers.test_fake_engine_runs import QUICK, expected
from tests.metadata_server import MetadataStandIn, running_metadata
from workers.inference.drain import TOO_LATE
from workers.inference.worker import InferenceWorker

Told = Callable[[Fleet, InferenceWorker, MetadataStandIn], object]

STEADY = QUICK | {"lease_ms": 20_000}
DRAIN = b'{"type": "drain"}'
WAYS: dict[str, Told] = {
    "a signal or the console": lambda fleet, worker, cloud: worker.request_stop(),
    "the control channel": lambda fleet, worker, cloud: fleet.client.publish(keys.control(worker.id), DRAIN),
    "a spot notice": lambda fleet, worker, cloud: cloud.interrupt(),
}


def test_jobs_go_on_elsewhere_at_once_whoever_says_so(fleet: Fleet) -> None:
    """The same eight jobs outlive three workers, each told in another way."""
    with running_metadata() as cloud, ExitStack() as stack:
        settings = fleet.settings("fake:speed=50", queue=STEADY)
        on_spot = fleet.settings("fake:speed=50", queue=STEADY, notices="ec2", notices_url=cloud.url)
        workers = [stack.enter_context(fleet.worker(settings))]
        jobs = {fleet.submit(workers[0], f"job {i}", 1500): f"job {i}" for i in range(8)}
        for tell, following in zip(WAYS.values(), (settings, on_spot, settings), strict=True):
            eventually(lambda: all(fleet.running(job_id) for job_id in jobs), "tokens")
            workers.append(stack.enter_context(fleet.worker(following)))
            eventually(lambda: workers[-1].ready, "engine ready")
            tell(fleet, workers[-2], cloud)
            assert workers[-2].join(5.0)
            assert fleet.client.scard(f"hr:held:{workers[-2].id}") == 0
            seen = {job_id: fleet.offset(job_id) for job_id in jobs}
            eventually(lambda seen=seen: all(fleet.offset(one) > seen[one] for one in jobs), "tokens")  # type: ignore[misc]
        for job_id, prompt in jobs.items():
            fleet.queue.cancel(job_id)
            job = fleet.get(job_id)
            assert (job.attempt, job.retries, job.deaths_total) == (4, 0, 0)
            resumed = [event.worker for event in fleet.events(job_id) if isinstance(event, Resumed)]
            assert resumed == [worker.id for worker in workers[1:]]
            tokens = fleet.token_ids(job_id)
            assert tokens == expected(prompt, len(tokens))


def test_an_engine_that_hangs_holds_nothing_up(fleet: Fleet) -> None:
    with fleet.worker(fleet.settings("fake:hang_at=20,poison=33", queue=QUICK)) as worker:
        job_id = fleet.submit(worker, "! hangs", 40)
        eventually(lambda: fleet.running(job_id, 20), "tokens")
        began = time.monotonic()
        worker.request_stop()
        eventually(lambda: fleet.get(job_id).state is State.QUEUED, "job back", 2.0)
        assert worker.join(4.0)
        assert time.monotonic() - began < 4.0
        assert fleet.get(job_id).deaths_total == 0
        assert fleet.token_ids(job_id) == expected("! hangs", 20)
        assert worker.engine_pid is None


def test_a_store_that_is_away_for_a_moment_gets_its_jobs_back(own_fleet: Fleet) -> None:
    with own_fleet.worker(own_fleet.settings("fake:speed=50", queue=STEADY)) as worker:
        job_id = own_fleet.submit(worker, "moment", 500)
        eventually(lambda: own_fleet.running(job_id), "tokens")
        own_fleet.server.kill()
        worker.request_stop()
        assert not worker.join(0.5)
        own_fleet.server.start()
        assert worker.join(5.0)
        job = own_fleet.get(job_id)
        assert (job.state, job.deaths_total, job.retries) == (State.QUEUED, 0, 0)


def test_a_notice_that_stands_when_it_starts_keeps_it_from_claiming(fleet: Fleet) -> None:
    with running_metadata() as cloud:
        cloud.interrupt()
        with fleet.worker(fleet.settings("fake:", queue=QUICK, notices="auto", notices_url=cloud.url)) as worker:
            eventually(lambda: worker.status().state == "paused", "paused")
            job_id = fleet.submit(worker, "not here", 10)
            assert worker.pause(False), "a person's word does not lift a notice"
            assert worker.status().state == "paused"
            cloud.instance_action = None
            assert fleet.ended(job_id).state is State.SUCCEEDED
            assert not worker.pause(False)


def test_a_store_that_hangs_does_not_keep_it_beyond_its_deadline(own_fleet: Fleet, tmp_path: Path) -> None:
    """Its leases run out then. The supervisor is told by the exit code that this was no death."""
    processes = Processes(own_fleet, tmp_path)
    limits = {"HEADRACE_WORKER__DRAIN_S": "1", "HEADRACE_REDIS__SOCKET_TIMEOUT_S": "30"}
    with processes.running("worker", "workers", "--model", "fake:speed=50", **limits) as worker:
        eventually(lambda: [beat for beat in read_beats(own_fleet.client) if beat.state == "ready"], "ready")
        job_id = own_fleet.submit_to("fake@stable", own_fleet.card("fake@stable").revision, max_tokens=1000)
        eventually(lambda: own_fleet.running(job_id), "tokens")
        os.kill(own_fleet.server.pid, signal.SIGSTOP)
        try:
            worker.send_signal(signal.SIGTERM)
            assert worker.wait(15.0) == TOO_LATE
        finally:
            os.kill(own_fleet.server.pid, signal.SIGCONT)
        assert "not drained within 1 s" in processes.log("worker")
        assert own_fleet.get(job_id).state is State.RUNNING
