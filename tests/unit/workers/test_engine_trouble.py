"""What the emitter does about an engine that dies, fails, loses count or does not step."""

from headrace.contract.errors import ErrorInfo
from headrace.contract.job import State
from headrace.queue.base import ReapRequest
from tests.unit.workers.desk import Desk, request_id
from workers.inference.inbox import EngineDown, EngineStepped
from workers.inference.messages import AbortRequests, Output, Stepped, StepStats


def test_a_dead_engine_s_jobs_go_back_at_once_and_what_it_made_is_kept(desk: Desk) -> None:
    job = desk.take()
    desk.step(job, "a", 0)
    desk.step(job, "bcd", 1)
    assert desk.text(job) == "a"
    desk.emitter.handle(EngineDown(1, died=True))
    desk.turn()
    assert desk.text(job) == "abcd"
    record = desk.record(job)
    assert (record.state, record.deaths, record.death_offset) == (State.QUEUED, 1, 4)
    assert desk.holdings.load().jobs == 0
    assert not desk.claims()


def test_a_dead_engine_holds_nothing(desk: Desk) -> None:
    """Its successor may have nothing to do for hours, and would be taken for full."""
    desk.take()
    stats = StepStats(running=1, waiting=2, kv_pages_used=3, kv_pages=8)
    desk.emitter.handle(EngineStepped(1, Stepped((), stats)))
    desk.emitter.handle(EngineDown(1, died=True))
    gauges = desk.metrics.snapshot()["gauges"]
    assert [gauges[f"headrace_engine_{name}"] for name in ("running", "waiting", "kv_pages_used")] == [0, 0, 0]


def test_nothing_is_claimed_until_the_dead_engine_s_jobs_are_back(desk: Desk) -> None:
    job = desk.take()
    desk.queue.away = True
    desk.emitter.handle(EngineDown(1, died=True))
    desk.engine_up(2)
    desk.turn(1.0)
    assert not desk.claims()
    desk.queue.away = False
    desk.turn(1.0)
    assert desk.claims()
    assert desk.record(job).deaths == 1


def test_a_claim_that_comes_when_there_is_no_engine_goes_back(desk: Desk) -> None:
    desk.emitter.handle(EngineDown(1, died=True))
    desk.turn()
    job = desk.take()
    assert desk.state(job) is State.QUEUED
    assert desk.holdings.load().jobs == 0


def test_a_retryable_error_waits_and_the_tokens_before_it_are_kept(desk: Desk) -> None:
    job = desk.take()
    desk.step(job, "a", 0)
    desk.step(job, "b", 1)
    desk.step(job, "", 2, error=ErrorInfo("engine_error", "boom", retryable=True))
    assert desk.state(job) is State.RETRY_WAIT
    assert desk.text(job) == "ab"
    desk.turn(1.1)
    desk.queue.reap(ReapRequest())
    assert desk.state(job) is State.QUEUED


def test_an_error_that_would_come_again_fails_the_job_and_no_other(desk: Desk) -> None:
    job, other = desk.take("job_1"), desk.take("job_2")
    desk.step(job, "", 0, error=ErrorInfo("grammar_error", "no such rule"))
    desk.step(other, "fine", 0, "stop")
    record = desk.record(job)
    assert record.state is State.FAILED
    assert record.error is not None
    assert record.error.code == "grammar_error"
    assert desk.state(other) is State.SUCCEEDED


def test_an_engine_that_lost_count_fails_that_request(desk: Desk) -> None:
    job = desk.take()
    desk.step(job, "far", 7)
    record = desk.record(job)
    assert record.state is State.RETRY_WAIT
    assert AbortRequests((request_id(job),)) in desk.commands


def test_an_engine_that_does_not_step_is_killed_and_its_jobs_are_not_blamed(desk: Desk) -> None:
    job = desk.take()
    desk.step(job, "a", 0)
    desk.turn(29.0)
    assert desk.killed == []
    desk.turn(2.0)
    assert desk.killed == [1]
    desk.turn(1.0)
    assert desk.killed == [1]
    assert desk.state(job) is State.RUNNING


def test_a_worker_that_was_held_still_blames_neither_its_engine_nor_its_jobs(desk: Desk) -> None:
    first, second = desk.take("job_1"), desk.take("job_2")
    desk.hear(Output(request_id(first), 0, tuple(b"a")), Output(request_id(second), 0, tuple(b"a")))
    desk.now += 100.0
    desk.turn()
    assert desk.killed == []
    desk.step(first, "b", 1)
    desk.turn(29.0)
    assert desk.state(second) is State.RUNNING
    assert desk.killed == []
    desk.turn(2.0)
    assert desk.killed == [1]


def test_an_idle_engine_is_left_in_peace(desk: Desk) -> None:
    desk.turn(1000.0)
    assert desk.killed == []
    desk.take()
    desk.turn(1.0)
    assert desk.killed == []


def test_a_request_without_progress_is_taken_back_and_one_that_waits_its_turn_is_not(desk: Desk) -> None:
    stuck, waiting, busy = desk.take("job_1"), desk.take("job_2"), desk.take("job_3")
    desk.emitter.handle(EngineStepped(1, Stepped((), StepStats(scheduled=(request_id(stuck),)))))
    for offset in range(31):
        desk.now += 1.0
        desk.step(busy, "x", offset)
    assert desk.state(stuck) is State.RETRY_WAIT
    error = desk.record(stuck).error
    assert error is not None
    assert error.code == "no_progress"
    assert desk.state(waiting) is State.RUNNING
    assert desk.state(busy) is State.RUNNING
