"""What a record remembers of the attempts that went wrong."""

from headrace.contract.errors import ErrorInfo
from headrace.contract.job import State
from headrace.queue import rules
from headrace.queue.base import Outcome, ReapRequest
from tests.contracts.bench import TIMING, Bench, accept, append, claim, delta, get, let_leases_expire, make_job

ERROR = ErrorInfo("engine_error", "It broke.", True)


def wait_for_retry(bench: Bench) -> None:
    bench.advance(10)
    assert bench.queue.reap(ReapRequest()).requeued


def test_each_retry_says_who_had_it_and_how_far_it_was(bench: Bench) -> None:
    accept(bench, make_job())
    for turn in range(4):
        mine = claim(bench, f"w{turn}")
        append(bench, mine.lease, delta(turn, (turn,)))
        before = bench.queue.retry(mine.lease, 5, ERROR)
        if before.state is not State.DEAD:
            wait_for_retry(bench)
    dead = get(bench, mine.id)
    assert (before.outcome, dead.state) == (Outcome.OK, State.DEAD)
    assert [(past.attempt, past.worker, past.offset) for past in dead.history] == [
        (1, "w0", 1),
        (2, "w1", 2),
        (3, "w2", 3),
        (4, "w3", 4),
    ]
    assert {(past.code, past.message) for past in dead.history} == {("engine_error", "It broke.")}
    times = [past.at for past in dead.history]
    assert times == sorted(times)
    assert times[-1] == dead.ended_at


def test_a_lease_that_ran_out_is_told_from_a_death(bench: Bench) -> None:
    accept(bench, make_job())
    bench.beat("w1")
    mine = claim(bench)
    let_leases_expire(bench)
    bench.lose_beat("w1")
    claim(bench)
    bench.advance(TIMING.lease_ms * 3 // 10)
    let_leases_expire(bench)
    claim(bench, "w2")
    bench.queue.reap(ReapRequest(worker="w2"))
    codes = [past.code for past in get(bench, mine.id).history]
    assert codes == ["lease_expired", "worker_died", "worker_stopped"]


def test_a_drain_is_no_fault(bench: Bench) -> None:
    accept(bench, make_job())
    mine = claim(bench)
    bench.queue.release(mine.lease)
    assert get(bench, mine.id).history == ()


def test_only_the_last_are_remembered_and_of_each_not_more_than_a_few_lines(bench: Bench) -> None:
    accept(bench, make_job())
    for _ in range(rules.MOST_PAST + 2):
        mine = claim(bench)
        bench.queue.reap(ReapRequest(worker="w1"))
    mine = claim(bench)
    bench.queue.retry(mine.lease, 5, ErrorInfo("engine_error", "ä" * 10_000, True))
    history = get(bench, mine.id).history
    assert len(history) == rules.MOST_PAST
    assert history[0].attempt == 4
    assert history[-1].message == "ä" * rules.MOST_MESSAGE
