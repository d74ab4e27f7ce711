"""What watchers are told: every attempt that began to be held here is told to its end, whatever that is."""

import pytest
import structlog

from headrace.contract.errors import ErrorInfo
from headrace.contract.job import State
from headrace.queue.base import ReapRequest
from tests.unit.workers.desk import Desk
from workers.inference.facts import Began, Delivered, Ended, Left, Retried
from workers.inference.inbox import Drain, Drop, EngineDown

BOOM = ErrorInfo("engine_error", "boom", retryable=True)


@pytest.fixture
def desk() -> Desk:
    return Desk()


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
    desk.emitter.handle(Drop(held.lease, "cancelled"))
    desk.emitter.handle(Drain())
    assert [fact.why for fact in desk.facts if isinstance(fact, Left)] == ["not begun", "cancelled"]


def test_a_line_about_a_job_carries_its_trace(desk: Desk) -> None:
    trace_id = "4bf92f3577b34da6a3ce929d0e0e4736"
    with structlog.testing.capture_logs() as lines:
        for traceparent in (f"00-{trace_id}-00f067aa0ba902b7-01", ""):
            job = desk.take(f"job_{bool(traceparent)}", traceparent=traceparent)
            desk.step(job, "", 0, error=BOOM)
    assert [line.get("trace_id") for line in lines if line["event"] == "request failed"] == [trace_id, None]
