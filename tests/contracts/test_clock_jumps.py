"""The server's clock jumps by an hour, as after a failover: nobody is massacred, nothing freezes (rules 6, 7)."""

import pytest

from headrace.contract.errors import ErrorInfo
from headrace.contract.job import State
from headrace.queue.base import Outcome, ReapRequest
from headrace.store import keys
from tests.contracts.bench import (
    TIMING,
    Bench,
    RedisBench,
    accept,
    append,
    claim,
    claim_request,
    delta,
    get,
    make_job,
    settle,
    success,
)

HOUR = 3_600_000
ERROR = ErrorInfo("engine_error", "x", True)


def live_on(bench: Bench, worker: str, job_id: str, seconds: int) -> None:
    """So long a worker renews one job, and somebody sweeps."""
    for _ in range(seconds):
        bench.advance(1000)
        assert bench.queue.renew(worker, [get(bench, job_id).lease]).gone == ()
        bench.queue.reap(ReapRequest())


@pytest.mark.parametrize("jump", [HOUR, -HOUR])
def test_who_renews_keeps_its_lease_and_who_does_not_loses_it_in_two_terms(bench: Bench, jump: int) -> None:
    accept(bench, make_job(), make_job())
    settle(bench)
    [living] = bench.queue.claim(claim_request("w1", max_jobs=1))
    [lost] = bench.queue.claim(claim_request("w2", max_jobs=1))
    append(bench, living.lease, delta(0, (1, 2)))
    live_on(bench, "w1", living.id, 2)
    bench.advance(jump)
    assert bench.queue.reap(ReapRequest()).quiet
    live_on(bench, "w1", living.id, 2 * TIMING.lease_ms // 1000)
    assert get(bench, living.id).lease == living.lease
    assert append(bench, living.lease, delta(2, (3,), "stop")).outcome is Outcome.OK
    assert bench.queue.finish(living.lease, success(1, 2, 3)).outcome is Outcome.OK
    assert (get(bench, lost.id).state, get(bench, lost.id).deaths) == (State.QUEUED, 1)


@pytest.mark.parametrize("jump", [HOUR, -HOUR])
def test_a_worker_that_renews_late_after_the_jump_is_not_reaped_before(bench: Bench, jump: int) -> None:
    """It may renew up to a full term after anybody could: rule 7's quiet."""
    accept(bench, make_job())
    settle(bench)
    mine = claim(bench)
    bench.advance(jump)
    for _ in range(TIMING.lease_ms // 1000):
        assert bench.queue.reap(ReapRequest()).quiet
        bench.advance(1000)
    assert bench.queue.renew("w1", [mine.lease]).gone == ()
    bench.queue.reap(ReapRequest())
    assert get(bench, mine.id).lease == mine.lease


def test_a_clock_that_went_back_holds_no_retry_back(bench: Bench) -> None:
    accept(bench, make_job())
    settle(bench)
    bench.queue.retry(claim(bench).lease, 4000, ERROR)
    bench.queue.reap(ReapRequest())
    bench.advance(-HOUR)
    assert bench.queue.reap(ReapRequest()).requeued == ()
    bench.advance(4001)
    assert len(bench.queue.reap(ReapRequest()).requeued) == 1


def test_a_clock_that_went_back_brings_the_quiet_to_an_end(bench: Bench) -> None:
    """Another jump within the quiet: its end must not lie an hour ahead."""
    assert bench.queue.reap(ReapRequest()).quiet
    bench.advance(-HOUR)
    for _ in range(TIMING.lease_ms // 1000):
        assert bench.queue.reap(ReapRequest()).quiet
        bench.advance(1000)
    assert not bench.queue.reap(ReapRequest()).quiet


def test_a_job_that_was_passed_over_waits_no_hour_longer(bench: Bench) -> None:
    large, small = make_job(prompt=500), make_job()
    accept(bench, large)
    assert bench.queue.claim(claim_request(kv_tokens=200, capacity=1000)) == ()
    bench.advance(-HOUR)
    assert bench.queue.claim(claim_request(kv_tokens=200, capacity=1000)) == ()
    accept(bench, small)
    bench.advance(TIMING.starvation_ms)
    assert bench.queue.claim(claim_request(kv_tokens=200, capacity=1000)) == ()
    assert next(iter(bench.queue.claim(claim_request(kv_tokens=1000)))).id == large.id


def test_a_step_of_the_clock_is_no_outage(bench: Bench) -> None:
    settle(bench)
    for step in (-40, -1, 0, 3):
        bench.advance(step)
        assert not bench.queue.reap(ReapRequest()).quiet


def test_deadlines_are_moments_of_the_servers_clock(bench: Bench) -> None:
    """One that jumps ahead has them pass, as an hour without a fleet would; one that goes back gives them more time."""
    accept(bench, make_job(deadline_in=HOUR + 60_000), make_job(deadline_in=60_000))
    settle(bench)
    bench.advance(-HOUR)
    settle(bench)
    bench.advance(60_000)
    assert bench.queue.reap(ReapRequest()).expired == ()
    bench.advance(HOUR)
    assert len(bench.queue.reap(ReapRequest()).expired) == 1


def test_a_job_held_back_for_a_ledger_is_found_after_a_jump(redis_bench: RedisBench) -> None:
    job = make_job()
    settle(redis_bench)
    redis_bench.queue.accept(job, hold=True)
    before = redis_bench.client.zscore(keys.ACCEPTED, job.id)
    assert before is not None
    redis_bench.advance(-HOUR)
    redis_bench.queue.reap(ReapRequest())
    after = redis_bench.client.zscore(keys.ACCEPTED, job.id)
    assert after is not None
    assert abs(before - after - HOUR) < 5000
