"""What watchers are told: every attempt that began to be held here is told to its end, whatever that is."""

import threading
from collections.abc import Callable

import pytest
import structlog

from headrace.contract.errors import ErrorInfo
from headrace.contract.generation import FrozenRequest, Sampling
from headrace.contract.job import Job, State
from headrace.queue.base import ClaimRequest, ReapRequest
from headrace.queue.memory import MemoryQueue
from tests.unit.workers.desk import LARGE, WORKER, Desk
from tests.unit.workers.jobs import make_job
from workers.console.job_events import JobEvents
from workers.inference.facts import Began, Delivered, Ended, Left, Retried, Why
from workers.inference.inbox import Answered, Drain, Drop, DropAll, EngineDown, Message, Take
from workers.inference.settling import BLOB_PAUSE_S

CLAIM = ClaimRequest(("m@stable",), WORKER, "r", "d", 10_000, 10_000, 1)
BOOM = ErrorInfo("engine_error", "boom", retryable=True)


def test_a_whole_life_is_told_in_order(desk: Desk) -> None:
    job = desk.take()
    desk.step(job, "a", 0)
    desk.step(job, "b", 1, "length")
    desk.turn(2.0)
    kinds = [type(fact) for fact in desk.facts]
    assert kinds == [Began, Delivered, Delivered, Ended]
    assert [fact.first for fact in desk.facts if isinstance(fact, Delivered)] == [True, False]
    assert desk.metrics.snapshot()["histograms"]["headrace_worker_append_seconds"]["count"] >= 3


def test_the_error_after_the_last_retry_is_told_as_a_death(desk: Desk) -> None:
    job = desk.take()
    for _ in range(3):
        desk.step(job, "", 0, error=BOOM)
        desk.turn(10.0)
        desk.queue.reap(ReapRequest())
        job = desk.take_again()
    desk.step(job, "", 0, error=BOOM)
    *retries, last = [fact for fact in desk.facts if isinstance(fact, Retried | Ended)]
    assert [type(fact) for fact in retries] == [Retried] * 3
    assert isinstance(last, Ended)
    assert (last.state, last.ending.state, last.ending.error) == (State.DEAD, State.FAILED, BOOM)


def test_a_job_that_cannot_be_begun_is_told_to_have_left(desk: Desk) -> None:
    desk.emitter.handle(EngineDown(1, died=False))
    desk.take()
    desk.engine_up(2)
    held = desk.take_again()
    desk.emitter.handle(Drop(held.lease, Why.CANCELLED))
    desk.emitter.handle(Drain())
    assert [fact.why for fact in desk.facts if isinstance(fact, Left)] == [Why.NOT_BEGUN, Why.CANCELLED]


def test_a_line_about_a_job_carries_its_trace(desk: Desk) -> None:
    trace_id = "4bf92f3577b34da6a3ce929d0e0e4736"
    with structlog.testing.capture_logs() as lines:
        for traceparent in (f"00-{trace_id}-00f067aa0ba902b7-01", ""):
            job = desk.take(f"job_{bool(traceparent)}", traceparent=traceparent)
            desk.step(job, "", 0, error=BOOM)
    assert [line.get("trace_id") for line in lines if line["event"] == "request failed"] == [trace_id, None]


def last(desk: Desk, job: Job) -> tuple[type, Why | State | None]:
    """The fact that ended the attempt, which is to be the only one."""
    (fact,) = [fact for fact in desk.facts if isinstance(fact, Ended | Left | Retried) and fact.job.lease == job.lease]
    return type(fact), fact.why if isinstance(fact, Left) else fact.state if isinstance(fact, Ended) else None


def shown(desk: Desk, job: Job) -> str:
    """The last that Celery's console is told of it."""
    events = JobEvents()
    told = [events.of(fact, 0.0) for fact in desk.facts if fact.job.id == job.id]
    return [event.type for event in told if event is not None][-1]


def test_a_cancel_that_comes_first_is_shown_as_one_wherever_the_worker_hears_of_it(desk: Desk) -> None:
    at_append, at_finish, by_message = desk.take("job_1"), desk.take("job_2"), desk.take("job_3")
    desk.queue.cancel(at_append.id)
    desk.step(at_append, "a", 0)
    desk.queue.no_place = frozenset({at_finish.id})
    desk.step(at_finish, "ab", 0, "stop")
    desk.queue.no_place = frozenset()
    desk.queue.cancel(at_finish.id)
    desk.turn(BLOB_PAUSE_S)
    desk.emitter.handle(Drop(by_message.lease, Why.CANCELLED))
    for job in (at_append, at_finish):
        assert last(desk, job) == (Left, Why.ENDED_ELSEWHERE)
    assert [shown(desk, job) for job in (at_append, at_finish, by_message)] == ["task-revoked"] * 3


def test_a_cancel_before_the_last_retry_is_not_told_as_a_failure(desk: Desk) -> None:
    job = desk.take()
    desk.queue.cancel(job.id)
    desk.step(job, "", 0, error=BOOM)
    assert last(desk, job) == (Left, Why.ENDED_ELSEWHERE)


def test_a_job_that_cannot_be_begun_and_is_another_s_by_now_has_not_failed_here(desk: Desk) -> None:
    odd = make_job("job_1", state=State.ACCEPTED, request=FrozenRequest((1,), Sampling(seed=1), 5, ("",)))
    desk.queue.accept(odd)
    (job,) = desk.queue.claim(CLAIM)
    desk.queue.release(job.lease)
    desk.emitter.handle(Take(job, desk.journaled(job.id)))
    assert desk.state(job) is State.QUEUED
    assert last(desk, job) == (Left, Why.LEASE_LOST)


@pytest.mark.parametrize(
    "blow",
    [
        lambda job: Drop(job.lease, Why.LEASE_LOST),
        lambda job: DropAll(Why.NOT_RENEWED),
    ],
    ids=["lease lost", "leases not renewed"],
)
@pytest.mark.parametrize("landed", [False, True], ids=["on its way", "landed"])
def test_a_large_success_is_told_as_one_although_the_lease_seemed_lost(
    desk: Desk, blow: Callable[[Job], Message], landed: bool
) -> None:
    job = desk.take()
    desk.queue.held_up = {job.id: (free := threading.Event())}
    desk.step(job, "a" * LARGE, 0, "stop")
    if landed:
        free.set()
        assert isinstance(desk.inbox.get(10), Answered)
    desk.emitter.handle(blow(job))
    if not landed:
        free.set()
        assert isinstance(desk.inbox.get(10), Answered)
    desk.turn()
    assert last(desk, job) == (Ended, State.SUCCEEDED)
    assert desk.holdings.load().jobs == 0


def test_a_large_success_that_came_too_late_is_told_as_lost(desk: Desk) -> None:
    job = desk.take()
    desk.queue.held_up = {job.id: (free := threading.Event())}
    desk.step(job, "a" * LARGE, 0, "stop")
    desk.queue.release(job.lease)
    desk.emitter.handle(Drop(job.lease, Why.LEASE_LOST))
    assert desk.holdings.load().jobs == 0
    again = desk.take_again()
    assert last(desk, job) == (Left, Why.LEASE_LOST)
    free.set()
    assert isinstance(desk.inbox.get(10), Answered)
    desk.turn()
    assert isinstance(desk.inbox.get(10), Answered)
    desk.turn()
    assert last(desk, again) == (Ended, State.SUCCEEDED)


def test_a_large_success_whose_place_and_lease_are_gone_is_forgotten(desk: Desk) -> None:
    job = desk.take()
    desk.queue.held_up = {job.id: (free := threading.Event())}
    desk.step(job, "a" * LARGE, 0, "stop")
    desk.queue.no_place = frozenset({job.id})
    desk.emitter.handle(Drop(job.lease, Why.LEASE_LOST))
    free.set()
    assert isinstance(desk.inbox.get(10), Answered)
    desk.turn()
    assert last(desk, job) == (Left, Why.LEASE_LOST)


def test_a_large_success_that_lands_before_a_drain_is_told_as_one(desk: Desk) -> None:
    job = desk.take()
    desk.queue.held_up = {job.id: (free := threading.Event())}
    desk.step(job, "a" * LARGE, 0, "stop")
    MemoryQueue.finish(desk.queue, job.lease, desk.running(job).ending())
    desk.emitter.handle(Drain())
    desk.turn()
    free.set()
    assert last(desk, job) == (Ended, State.SUCCEEDED)
