"""reap: what nobody holds goes back, once, and no outage is a massacre (rules 7, 8)."""

from headrace.contract.errors import ErrorInfo
from headrace.contract.events import Expired, Failed
from headrace.contract.job import State
from headrace.queue.base import Outcome, ReapRequest
from tests.contracts.bench import (
    TIMING,
    Bench,
    accept,
    append,
    claim,
    claim_request,
    delta,
    get,
    let_leases_expire,
    make_job,
    settle,
    success,
)

DIED = ReapRequest(worker="w1", died=True)


def test_an_expired_lease_goes_back_and_counts_a_death(bench: Bench) -> None:
    accept(bench, make_job())
    mine = claim(bench)
    append(bench, mine.lease, delta(0, (1, 2)))
    replies = let_leases_expire(bench)
    assert [job_id for reply in replies for job_id in reply.requeued] == [mine.id]
    back = get(bench, mine.id)
    assert (back.state, back.deaths, back.deaths_total, back.death_offset) == (State.QUEUED, 1, 1, 2)
    assert append(bench, mine.lease, delta(2, (3,))).outcome is Outcome.LOST
    assert bench.queue.finish(mine.lease, success(1, 2)).outcome is Outcome.LOST


def test_a_worker_that_still_beats_has_not_died(bench: Bench) -> None:
    accept(bench, make_job())
    mine = claim(bench)
    bench.beat("w1")
    let_leases_expire(bench)
    back = get(bench, mine.id)
    assert (back.state, back.deaths) == (State.QUEUED, 0)


def test_a_beat_that_stopped_counts(bench: Bench) -> None:
    accept(bench, make_job())
    mine = claim(bench)
    bench.beat("w1")
    bench.lose_beat("w1")
    let_leases_expire(bench)
    assert get(bench, mine.id).deaths == 1


def test_leases_are_left_alone_for_a_full_lease_after_an_outage(bench: Bench) -> None:
    accept(bench, make_job())
    settle(bench)
    mine = claim(bench)
    bench.advance(3 * TIMING.lease_ms)
    assert bench.queue.reap(ReapRequest()).quiet
    assert get(bench, mine.id).lease == mine.lease
    bench.advance(TIMING.lease_ms * 4 // 10)
    assert bench.queue.renew("w1", [mine.lease]).gone == ()
    settle(bench)
    assert get(bench, mine.id).lease == mine.lease
    let_leases_expire(bench)
    assert get(bench, mine.id).state is State.QUEUED


def test_the_first_tick_ever_is_quiet(bench: Bench) -> None:
    accept(bench, make_job())
    mine = claim(bench)
    bench.advance(2 * TIMING.lease_ms)
    reply = bench.queue.reap(ReapRequest())
    assert (reply.quiet, reply.requeued) == (True, ())
    assert get(bench, mine.id).state is State.LEASED


def test_a_worker_seen_to_die_is_reaped_at_once(bench: Bench) -> None:
    accept(bench, make_job(), make_job())
    first, second = bench.queue.claim(claim_request())
    accept(bench, make_job())
    [other] = bench.queue.claim(claim_request("w2"))
    reply = bench.queue.reap(DIED)
    assert set(reply.requeued) == {first.id, second.id}
    assert bench.queue.reap(DIED).requeued == ()
    assert get(bench, first.id).deaths == 1
    assert get(bench, other.id).lease == other.lease


def test_a_worker_that_stopped_is_reaped_uncounted(bench: Bench) -> None:
    accept(bench, make_job())
    mine = claim(bench)
    assert bench.queue.reap(ReapRequest(worker="w1")).requeued == (mine.id,)
    assert get(bench, mine.id).deaths == 0


def test_three_deaths_without_progress_are_poison(bench: Bench) -> None:
    accept(bench, make_job(deadline_in=600_000, idem_key="k"))
    for _ in range(3):
        mine = claim(bench)
        append(bench, mine.lease)
        reply = bench.queue.reap(DIED)
    assert (reply.requeued, reply.dead) == ((), (mine.id,))
    dead = get(bench, mine.id)
    assert (dead.state, dead.deaths) == (State.DEAD, 3)
    assert dead.error is not None
    assert dead.error.code == "poison"
    last = bench.events(mine.id)[-1]
    assert isinstance(last, Failed)
    assert (last.error.code, last.error.message) == ("poison", dead.error.message)
    assert [(past.attempt, past.worker, past.code, past.offset) for past in dead.history] == [
        (1, "w1", "worker_died", 0),
        (2, "w1", "worker_died", 0),
        (3, "w1", "worker_died", 0),
    ]
    assert bench.leftovers() == set()


def test_a_job_said_to_its_end_dies_no_more(bench: Bench) -> None:
    """It only waits to be handed in: engines that die meanwhile die of others."""
    accept(bench, make_job())
    for _ in range(2):
        mine = claim(bench)
        append(bench, mine.lease)
        bench.queue.reap(DIED)
    mine = claim(bench)
    append(bench, mine.lease, delta(0, (1, 2), "stop"))
    assert get(bench, mine.id).deaths == 0
    for _ in range(3):
        assert bench.queue.reap(DIED).requeued == (mine.id,)
        mine = claim(bench)
    assert get(bench, mine.id).deaths_total == 2
    assert bench.queue.finish(mine.lease, success(1, 2)).outcome is Outcome.OK


def test_ten_deaths_in_all_are_poison_even_with_progress(bench: Bench) -> None:
    accept(bench, make_job(max_tokens=1000))
    for deaths in range(10):
        mine = claim(bench)
        append(bench, mine.lease, delta(16 * deaths, tuple(range(16))))
        reply = bench.queue.reap(DIED)
    assert reply.dead == (mine.id,)
    assert (get(bench, mine.id).deaths, get(bench, mine.id).deaths_total) == (1, 10)


def test_passed_deadlines_end_jobs_in_every_state(bench: Bench) -> None:
    jobs = [make_job(deadline_in=5000) for _ in range(4)]
    accept(bench, *jobs)
    leased, running, waiting = bench.queue.claim(claim_request(max_jobs=3))
    append(bench, running.lease, delta(0, (1,)))
    bench.queue.retry(waiting.lease, 60_000, ErrorInfo("engine_error", "x", True))
    bench.advance(4000)
    assert bench.queue.reap(ReapRequest()).expired == ()
    bench.advance(1001)
    assert set(bench.queue.reap(ReapRequest()).expired) == {job.id for job in jobs}
    for job in jobs:
        assert get(bench, job.id).state is State.EXPIRED
        assert isinstance(bench.events(job.id)[-1], Expired)
    assert append(bench, leased.lease).state is State.EXPIRED
    assert bench.queue.reap(ReapRequest()).expired == ()
    assert bench.leftovers() == set()


def test_no_more_than_the_limit_at_once(bench: Bench) -> None:
    accept(bench, *(make_job(deadline_in=1) for _ in range(5)))
    bench.advance(1000)
    assert len(bench.queue.reap(ReapRequest(limit=3)).expired) == 3
    assert len(bench.queue.reap(ReapRequest(limit=3)).expired) == 2
