"""Falling back: a job whose model fails before its first token begins with another one, under the same id (rule 9)."""

from dataclasses import replace

from headrace.contract.errors import ErrorInfo
from headrace.contract.events import Retrying, Started
from headrace.contract.generation import FrozenRequest, Sampling
from headrace.contract.job import Fallback, Job, State
from headrace.queue.base import FinishReply, Outcome, ReapRequest
from tests.contracts.bench import Bench, accept, append, claim, claim_request, delta, get, make_job, success, types

ERROR = ErrorInfo("engine_error", "It broke.", True)
OTHER = "other@stable"
REQUEST = FrozenRequest((7, 8, 9, 10, 11), Sampling(seed=7), 32)


def with_fallback() -> Job:
    return replace(make_job(), fallback=Fallback("other", OTHER, "r2", REQUEST))


def fail(bench: Bench, times: int) -> FinishReply:
    """So many attempts on the first model end with a retryable error."""
    for _ in range(times):
        mine = claim(bench)
        append(bench, mine.lease)
        reply = bench.queue.retry(mine.lease, 5, ERROR)
        bench.advance(10)
        bench.queue.reap(ReapRequest())
    return reply


def claim_other(bench: Bench) -> Job:
    [job] = bench.queue.claim(claim_request("w2", lanes=(OTHER,), revision="r2", digest="d2"))
    return job


def test_the_record_keeps_both_requests(bench: Bench) -> None:
    job = with_fallback()
    accept(bench, job)
    assert get(bench, job.id).fallback == job.fallback


def test_after_all_retries_the_other_model_begins(bench: Bench) -> None:
    job = with_fallback()
    accept(bench, job)
    assert fail(bench, 4) == FinishReply(Outcome.OK, State.QUEUED)
    assert bench.queue.claim(claim_request()) == ()
    # Nobody has begun it with this model: a replay must not look for the first one's numerics here.
    assert (get(bench, job.id).digest, get(bench, job.id).digests) == ("", ())
    mine = claim_other(bench)
    assert (mine.id, mine.model, mine.revision, mine.fallback_of) == (job.id, "other", "r2", "tiny")
    assert (mine.request, mine.retries, mine.fallback) == (REQUEST, 0, None)
    assert mine.kv_tokens == 5 + 32
    assert len(mine.history) == 4
    append(bench, mine.lease, delta(0, (1, 2), "stop"))
    assert bench.queue.finish(mine.lease, success(1, 2)).outcome is Outcome.OK
    done = get(bench, job.id)
    assert (done.state, done.error) == (State.SUCCEEDED, None)
    assert done.usage is not None
    assert done.usage.prompt_tokens == 5
    assert bench.leftovers() == set()


def test_a_reader_sees_a_retry_and_a_second_start(bench: Bench) -> None:
    job = with_fallback()
    accept(bench, job)
    fail(bench, 4)
    append(bench, claim_other(bench).lease)
    events = bench.events(job.id)
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    retrying, started = events[-2:]
    assert isinstance(retrying, Retrying)
    assert (retrying.in_ms, retrying.error.code) == (0, "engine_error")
    assert isinstance(started, Started)
    assert (started.revision, started.digest, started.attempt) == ("r2", "d2", 5)
    assert get(bench, job.id).digests == ("d2",)


def test_after_a_token_nobody_else_goes_on(bench: Bench) -> None:
    accept(bench, with_fallback())
    mine = claim(bench)
    append(bench, mine.lease, delta(0, (1,)))
    bench.queue.retry(mine.lease, 5, ERROR)
    bench.advance(10)
    bench.queue.reap(ReapRequest())
    assert fail(bench, 3).state is State.DEAD
    assert "failed" in types(bench, mine.id)


def test_the_other_model_has_retries_of_its_own_and_no_other(bench: Bench) -> None:
    accept(bench, with_fallback())
    fail(bench, 4)
    for _ in range(4):
        mine = claim_other(bench)
        reply = bench.queue.retry(mine.lease, 5, ERROR)
        bench.advance(10)
        bench.queue.reap(ReapRequest())
    assert reply.state is State.DEAD
    dead = get(bench, mine.id)
    assert dead.error is not None
    assert (dead.error.code, dead.model, dead.fallback_of) == ("retries_exhausted", "other", "tiny")


def test_saying_the_last_retry_again_moves_nothing(bench: Bench) -> None:
    accept(bench, with_fallback())
    fail(bench, 3)
    mine = claim(bench)
    assert bench.queue.retry(mine.lease, 5, ERROR).state is State.QUEUED
    assert bench.queue.retry(mine.lease, 5, ERROR).outcome is Outcome.LOST
    assert claim_other(bench).fallback is None
