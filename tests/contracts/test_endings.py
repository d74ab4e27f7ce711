"""finish, retry, release, cancel, renew: each job ends once, by one routine (rules 1, 4, 5, 6)."""

from dataclasses import replace

import pytest

from headrace.contract.errors import ErrorInfo
from headrace.contract.events import Cancelled, Completed, to_json
from headrace.contract.generation import Choice, TokenLogprobs, Usage
from headrace.contract.job import Job, Lease, State
from headrace.queue.base import Ending, Outcome, ReapRequest
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
    success,
    types,
)

ERROR = ErrorInfo("engine_error", 'It "broke" / ünd\nthen', True)
PUBLIC_ERROR = {"code": ERROR.code, "message": ERROR.message}


@pytest.fixture
def job(bench: Bench) -> Job:
    """A job that runs and has four of its tokens, its last one included."""
    accept(bench, make_job(idem_key="k"))
    mine = claim(bench)
    append(bench, mine.lease, delta(0, (1, 2, 3, 4), "stop"))
    return mine


def test_success_keeps_result_usage_and_last_event(bench: Bench, job: Job) -> None:
    ending = replace(success(1, 2, 3, 4), usage=Usage(4, 4, 3))
    assert bench.queue.finish(job.lease, ending).outcome is Outcome.OK
    ended = get(bench, job.id)
    assert ended.state is State.SUCCEEDED
    assert ended.usage == Usage(4, 4, 3)
    assert ended.ended_at is not None
    assert ended.result_ref
    assert bench.result(job.id) == (Choice(0, (1, 2, 3, 4), "stop"),)
    assert bench.events(job.id)[-1] == Completed(4, Usage(4, 4, 3))
    assert bench.leftovers() == set()


def test_the_same_finish_again_is_ok_and_another_is_terminal(bench: Bench, job: Job) -> None:
    bench.queue.finish(job.lease, success(1, 2, 3, 4))
    again = bench.queue.finish(job.lease, success(1, 2, 3, 4))
    assert (again.outcome, again.state) == (Outcome.OK, State.SUCCEEDED)
    stranger = Lease(job.id, "stranger", job.epoch)
    other = bench.queue.finish(stranger, success(1, 2, 3, 4))
    assert (other.outcome, other.state) == (Outcome.TERMINAL, State.SUCCEEDED)
    assert append(bench, job.lease, delta(4, (5,))).outcome is Outcome.TERMINAL
    assert bench.queue.retry(job.lease, 10, ERROR).outcome is Outcome.TERMINAL
    assert bench.queue.release(job.lease).outcome is Outcome.TERMINAL
    assert bench.queue.cancel(job.id).outcome is Outcome.TERMINAL
    assert types(bench, job.id) == ["accepted", "started", "delta", "completed"]


def test_success_is_refused_while_the_journal_lacks_tokens(bench: Bench) -> None:
    accept(bench, make_job())
    mine = claim(bench)
    append(bench, mine.lease, delta(0, (1, 2)))
    for ids in ((1, 2, 3), (1, 2), ()):
        reply = bench.queue.finish(mine.lease, success(*ids))
        assert (reply.outcome, reply.choice, reply.have) == (Outcome.GAP, 0, 2)
    append(bench, mine.lease, delta(2, (3,), "stop"))
    assert bench.queue.finish(mine.lease, success(1, 2, 3)).outcome is Outcome.OK


def test_every_choice_must_be_there(bench: Bench) -> None:
    accept(bench, make_job(n=2))
    mine = claim(bench)
    append(bench, mine.lease, delta(0, (1,), "stop", 0), delta(0, (2, 3), "length", 1))
    usage = Usage(4, 3)
    one, two = Choice(0, (1,), "stop"), Choice(1, (2, 3), "length")
    assert bench.queue.finish(mine.lease, Ending(State.SUCCEEDED, usage, (one,))).choice == 1
    assert bench.queue.finish(mine.lease, Ending(State.SUCCEEDED, usage, (two, one))).outcome is Outcome.OK
    assert bench.result(mine.id) == (one, two)


def test_a_result_keeps_log_probabilities(bench: Bench, job: Job) -> None:
    entries = tuple(TokenLogprobs(-0.5, ((token, -0.5),)) for token in range(4))
    choice = Choice(0, (1, 2, 3, 4), "stop", entries, (None, *entries))
    bench.queue.finish(job.lease, Ending(State.SUCCEEDED, Usage(4, 4), (choice,)))
    assert bench.result(job.id) == (choice,)


def test_failure_tells_why_and_keeps_no_result(bench: Bench, job: Job) -> None:
    bench.queue.finish(job.lease, Ending(State.FAILED, Usage(4), error=ERROR))
    ended = get(bench, job.id)
    assert (ended.state, ended.error, ended.result_ref) == (State.FAILED, ERROR, "")
    assert to_json(bench.events(job.id)[-1]) == {"seq": 4, "type": "failed", "error": PUBLIC_ERROR}
    assert bench.result(job.id) is None
    assert bench.leftovers() == set()


def test_a_retry_waits_and_then_comes_back(bench: Bench, job: Job) -> None:
    assert bench.queue.retry(job.lease, 1000, ERROR).state is State.RETRY_WAIT
    waiting = get(bench, job.id)
    assert (waiting.state, waiting.retries, waiting.error) == (State.RETRY_WAIT, 1, ERROR)
    assert (waiting.lease_id, waiting.owner) == ("", "")
    assert to_json(bench.events(job.id)[-1]) == {
        "seq": 4,
        "type": "retrying",
        "in_ms": 1000,
        "error": PUBLIC_ERROR,
    }
    assert bench.queue.retry(job.lease, 1000, ERROR).outcome is Outcome.LOST
    assert bench.queue.claim(claim_request()) == ()
    assert bench.queue.reap(ReapRequest()).requeued == ()
    bench.advance(1000)
    assert bench.queue.reap(ReapRequest()).requeued == (job.id,)
    mine = claim(bench)
    append(bench, mine.lease)
    bench.queue.finish(mine.lease, success(1, 2, 3, 4))
    assert get(bench, job.id).error is None
    assert types(bench, job.id) == ["accepted", "started", "delta", "retrying", "resumed", "completed"]
    assert bench.leftovers() == set()


def test_the_fourth_retry_is_death(bench: Bench) -> None:
    accept(bench, make_job())
    for retries in range(4):
        mine = claim(bench)
        assert mine.retries == retries
        reply = bench.queue.retry(mine.lease, 0, ERROR)
        bench.queue.reap(ReapRequest())
    assert (reply.outcome, reply.state) == (Outcome.OK, State.DEAD)
    dead = get(bench, mine.id)
    assert dead.error is not None
    assert dead.error.code == "retries_exhausted"
    assert ERROR.message in dead.error.message
    assert types(bench, mine.id) == ["accepted", "retrying", "retrying", "retrying", "failed"]
    assert bench.leftovers() == set()


def test_a_release_is_not_counted(bench: Bench, job: Job) -> None:
    assert bench.queue.release(job.lease).state is State.QUEUED
    assert bench.queue.release(job.lease).outcome is Outcome.LOST
    back = get(bench, job.id)
    assert (back.state, back.retries, back.deaths, back.owner) == (State.QUEUED, 0, 0, "")
    assert types(bench, job.id) == ["accepted", "started", "delta"]


@pytest.mark.parametrize("state", ["queued", "leased", "running", "waiting"])
def test_cancel_ends_every_live_state(bench: Bench, state: str) -> None:
    accept(bench, make_job(deadline_in=60_000))
    if state != "queued":
        mine = claim(bench)
    if state == "running":
        append(bench, mine.lease, delta(0, (1, 2)))
    if state == "waiting":
        bench.queue.retry(mine.lease, 1000, ERROR)
    [job_id] = [mine.id] if state != "queued" else [job.id for job in bench.queue.claim(claim_request(max_jobs=1))]
    reply = bench.queue.cancel(job_id)
    assert (reply.outcome, reply.state) == (Outcome.OK, State.CANCELLED)
    assert bench.queue.cancel(job_id).outcome is Outcome.TERMINAL
    ended = get(bench, job_id)
    assert ended.usage == Usage(4, 2 if state == "running" else 0)
    assert isinstance(bench.events(job_id)[-1], Cancelled)
    assert bench.queue.claim(claim_request()) == ()
    bench.advance(120_000)
    bench.queue.reap(ReapRequest())
    assert get(bench, job_id).state is State.CANCELLED
    assert bench.leftovers() == set()


def test_a_cancelled_job_refuses_its_worker(bench: Bench, job: Job) -> None:
    bench.queue.cancel(job.id)
    reply = append(bench, job.lease, delta(4, (5,)))
    assert (reply.outcome, reply.state) == (Outcome.TERMINAL, State.CANCELLED)
    finish = bench.queue.finish(job.lease, success(1, 2, 3, 4))
    assert (finish.outcome, finish.state) == (Outcome.TERMINAL, State.CANCELLED)
    renewed = bench.queue.renew("w1", [job.lease])
    assert (renewed.held, renewed.gone) == ((), (job.id,))


def test_renewing_keeps_a_lease_alive(bench: Bench, job: Job) -> None:
    for _ in range(3):
        bench.advance(TIMING.lease_ms * 4 // 10)
        assert bench.queue.renew("w1", [job.lease]).gone == ()
        assert job.id not in bench.queue.reap(ReapRequest()).requeued
    assert get(bench, job.id).lease == job.lease


def test_renewing_tells_what_else_is_held_and_what_is_gone(bench: Bench, job: Job) -> None:
    accept(bench, make_job())
    unknown = claim(bench)
    old = replace(job.lease, epoch=job.epoch - 1)
    reply = bench.queue.renew("w1", [job.lease, old, Lease("job_none", "x", 1)])
    assert {lease.job_id for lease in reply.held} == {job.id, unknown.id}
    assert unknown.lease in reply.held
    assert reply.gone == (job.id, "job_none")
    assert bench.queue.renew("w2", [job.lease]).held == ()


def test_a_reaped_lease_cannot_be_renewed(bench: Bench, job: Job) -> None:
    let_leases_expire(bench)
    reply = bench.queue.renew("w1", [job.lease])
    assert (reply.held, reply.gone) == ((), (job.id,))
