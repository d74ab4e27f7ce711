"""A model that changes under a job: another revision never continues it, other numerics do and say so (rule 10)."""

import pytest

from headrace.contract.errors import ErrorInfo
from headrace.contract.events import Delta, Failed, Resumed
from headrace.contract.job import Job, State
from headrace.queue.base import Outcome, ReapRequest
from tests.contracts.bench import (
    LANE,
    Bench,
    accept,
    append,
    claim_request,
    delta,
    get,
    make_job,
    settle,
    success,
    types,
)

ERROR = ErrorInfo("engine_error", "x", True)


@pytest.fixture
def begun(bench: Bench) -> Job:
    """A job with three tokens of revision `old`, back in its lane."""
    job = make_job(revision="old")
    accept(bench, job)
    bench.set_card(LANE, "old")
    [mine] = bench.queue.claim(claim_request(revision="old"))
    append(bench, mine.lease, delta(0, (1, 2, 3)))
    bench.queue.release(mine.lease)
    return job


def test_another_revision_leaves_a_begun_job_to_its_own(bench: Bench, begun: Job) -> None:
    for digest in ("d1", "d2"):
        assert bench.queue.claim(claim_request(revision="new", digest=digest)) == ()
    assert get(bench, begun.id).state is State.QUEUED
    [again] = bench.queue.claim(claim_request("w2", revision="old"))
    append(bench, again.lease, delta(3, (4,), "stop"))
    assert bench.events(begun.id)[-2] == Resumed(4, 2, "w2", (3,), exact=True)
    assert bench.queue.finish(again.lease, success(1, 2, 3, 4)).outcome is Outcome.OK


def test_a_begun_job_whose_revision_is_gone_fails_and_keeps_what_was_said(bench: Bench, begun: Job) -> None:
    bench.set_card(LANE, "new")
    assert bench.queue.claim(claim_request(revision="new")) == ()
    ended = get(bench, begun.id)
    assert (ended.state, ended.retries, ended.next_offset) == (State.FAILED, 0, (3,))
    last = bench.events(begun.id)[-1]
    assert isinstance(last, Failed)
    assert (last.error.code, last.error.retryable) == ("revision_gone", False)
    assert [event.token_ids for event in bench.events(begun.id) if isinstance(event, Delta)] == [(1, 2, 3)]
    assert bench.queue.claim(claim_request(revision="old")) == ()
    assert bench.leftovers() == set()


def test_one_that_waits_to_be_tried_again_fails_when_its_time_comes(bench: Bench, begun: Job) -> None:
    [mine] = bench.queue.claim(claim_request(revision="old"))
    bench.queue.retry(mine.lease, 1000, ERROR)
    bench.set_card(LANE, "new")
    assert bench.queue.claim(claim_request(revision="new")) == ()
    assert get(bench, begun.id).state is State.RETRY_WAIT
    settle(bench)
    bench.advance(1001)
    bench.queue.reap(ReapRequest())
    assert bench.queue.claim(claim_request(revision="new")) == ()
    assert get(bench, begun.id).state is State.FAILED


def test_a_new_card_takes_no_job_from_a_worker_of_the_old_revision(bench: Bench, begun: Job) -> None:
    [mine] = bench.queue.claim(claim_request(revision="old"))
    bench.set_card(LANE, "new")
    assert bench.queue.claim(claim_request("w2", revision="new")) == ()
    assert append(bench, mine.lease, delta(3, (4,), "stop")).outcome is Outcome.OK
    assert bench.queue.finish(mine.lease, success(1, 2, 3, 4)).state is State.SUCCEEDED


def test_other_numerics_go_on_from_the_journaled_ids_and_say_so(bench: Bench, begun: Job) -> None:
    [again] = bench.queue.claim(claim_request("w2", revision="old", digest="other"))
    assert append(bench, again.lease, delta(2, (3, 9))).outcome is Outcome.GAP
    assert append(bench, again.lease, delta(0, (1, 2, 9))).diverged
    assert append(bench, again.lease, delta(3, (9,), "stop")).outcome is Outcome.OK
    assert types(bench, begun.id) == ["accepted", "started", "delta", "resumed", "delta"]
    assert bench.events(begun.id)[3] == Resumed(4, 2, "w2", (3,), exact=False)
