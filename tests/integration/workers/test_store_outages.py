"""Redis goes away under a running worker, comes back, or comes back without its last seconds."""

import time

from headrace.contract.job import State
from headrace.store import keys
from tests.integration.workers.fleet import Fleet, eventually
from tests.integration.workers.test_fake_engine_runs import QUICK, expected
from workers.inference.worker import InferenceWorker

LONG_LEASE = {**QUICK, "lease_ms": 20_000}
SHORT_LEASE = {**QUICK, "lease_ms": 1_000}


def decoded(worker: InferenceWorker) -> float:
    return float(worker.metrics.snapshot()["counters"]["headrace_engine_decoded_tokens_total"])


def test_a_short_outage_is_sat_out_in_memory(own_fleet: Fleet) -> None:
    with own_fleet.worker(own_fleet.settings("fake:speed=100", queue=LONG_LEASE)) as worker:
        job_id = own_fleet.submit(worker, "short", 200)
        eventually(lambda: own_fleet.running(job_id, 20), "tokens")
        own_fleet.server.kill()
        seen = decoded(worker)
        eventually(lambda: decoded(worker) > seen + 20, "tokens made during the outage")
        own_fleet.server.start()
        assert own_fleet.ended(job_id).state is State.SUCCEEDED
        assert own_fleet.token_ids(job_id) == expected("short", 200)
        assert own_fleet.types(job_id) == ["accepted", "started", "delta", "completed"]


def test_a_long_outage_stops_the_worker_which_goes_on_afterwards(own_fleet: Fleet) -> None:
    with own_fleet.worker(own_fleet.settings("fake:speed=50", queue=SHORT_LEASE)) as worker:
        job_id = own_fleet.submit(worker, "long", 150)
        eventually(lambda: own_fleet.running(job_id, 20), "tokens")
        own_fleet.server.kill()
        began = time.monotonic()
        eventually(lambda: worker.held == 0, "worker stopped by itself")
        assert 0.5 < time.monotonic() - began < 3.0
        own_fleet.server.start()
        job = own_fleet.ended(job_id)
        assert job.state is State.SUCCEEDED
        assert job.attempt == 2
        assert job.deaths_total == 0
        assert own_fleet.token_ids(job_id) == expected("long", 150)


def test_a_store_that_lost_its_tail_is_healed_by_the_worker(fleet: Fleet) -> None:
    with fleet.worker(fleet.settings("fake:speed=100", queue=LONG_LEASE)) as worker:
        job_id = fleet.submit(worker, "tail", 200)
        eventually(lambda: fleet.running(job_id, 20), "tokens")
        earlier = fleet.client.dump(keys.job(job_id)), fleet.client.dump(keys.journal(job_id))
        at = fleet.offset(job_id)
        eventually(lambda: fleet.offset(job_id) > at + 50, "more tokens")
        with fleet.client.pipeline(transaction=True) as pipe:
            for key, value in zip((keys.job(job_id), keys.journal(job_id)), earlier, strict=True):
                assert value is not None
                pipe.restore(key, 0, value, replace=True)
            pipe.execute()
        assert fleet.ended(job_id).state is State.SUCCEEDED
        assert fleet.token_ids(job_id) == expected("tail", 200)
        assert fleet.types(job_id) == ["accepted", "started", "delta", "completed"]


def test_a_store_that_forgot_everything_leaves_a_worker_that_works(fleet: Fleet) -> None:
    with fleet.worker(fleet.settings("fake:speed=100", queue=QUICK)) as worker:
        fleet.submit(worker, "forgotten", 1000)
        eventually(lambda: worker.held == 1, "claimed")
        fleet.client.flushall()
        eventually(lambda: worker.held == 0, "dropped")
        assert fleet.ended(fleet.submit(worker, "new", 20)).state is State.SUCCEEDED


def test_a_lease_that_is_another_s_is_let_go(fleet: Fleet) -> None:
    with fleet.worker(fleet.settings("fake:speed=50", queue=QUICK)) as worker:
        job_id = fleet.submit(worker, "mine", 100)
        eventually(lambda: fleet.running(job_id, 2), "tokens")
        fleet.queue.release(fleet.get(job_id).lease)
        eventually(lambda: fleet.get(job_id).attempt == 2, "claimed again")
        assert fleet.ended(job_id).state is State.SUCCEEDED
        assert fleet.token_ids(job_id) == expected("mine", 100)
