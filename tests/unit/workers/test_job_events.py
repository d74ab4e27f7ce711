"""What Celery's console is told of a job."""

import pytest

from headrace.contract.errors import ErrorInfo
from headrace.contract.generation import Usage
from headrace.contract.job import State
from headrace.queue.base import Ending
from tests.unit.workers.jobs import make_job
from workers.console.job_events import JobEvents, TaskEvent
from workers.inference.facts import Began, Claimed, Delivered, Ended, Fact, Left, Retried, Why

JOB = make_job("job_1")
BROKEN = ErrorInfo("engine_error", "It broke.", retryable=True)


def told(*facts: Fact) -> list[TaskEvent | None]:
    """One fact a second."""
    events = JobEvents()
    return [events.of(fact, 100.0 + second) for second, fact in enumerate(facts)]


def test_a_whole_life() -> None:
    ending = Ending(State.SUCCEEDED, Usage(3, 37))
    received, started, delivered, succeeded = told(
        Claimed(JOB), Began(JOB), Delivered(JOB, 37, True), Ended(JOB, ending, State.SUCCEEDED)
    )
    assert received is not None
    assert (received.type, received.at) == ("task-received", 100.0)
    assert received.fields["uuid"] == "job_1"
    assert received.fields["name"] == "headrace.job.completion"
    assert received.fields["kwargs"] == "{'model': 'm', 'class': 'standard', 'prompt_tokens': 3}"
    assert started == TaskEvent("task-started", 101.0, {"uuid": "job_1"})
    assert delivered is None
    result = {"uuid": "job_1", "result": "37 tokens", "runtime": 2.0}
    assert succeeded == TaskEvent("task-succeeded", 103.0, result)


@pytest.mark.parametrize(
    ("fact", "type_", "said"),
    [
        (Retried(JOB, BROKEN, 1000), "task-retried", "engine_error: It broke. (again in 1000 ms)"),
        (Left(JOB, Why.DRAINED), "task-retried", "drained"),
        (Left(JOB, Why.ENGINE_DIED), "task-retried", "engine died"),
        (Ended(JOB, Ending(State.FAILED, Usage(3, 0), error=BROKEN), State.FAILED), "task-failed", "engine_error: It"),
        (Ended(JOB, Ending(State.SUCCEEDED, Usage(3, 1)), State.CANCELLED), "task-failed", "CANCELLED"),
    ],
)
def test_what_ends_an_attempt(fact: Fact, type_: str, said: str) -> None:
    _, event = told(Began(JOB), fact)
    assert event is not None
    assert event.type == type_
    assert event.fields["uuid"] == "job_1"
    assert event.fields["exception"].startswith(said)


@pytest.mark.parametrize("why", [Why.CANCELLED, Why.ENDED_ELSEWHERE])
def test_a_job_that_somebody_else_has_ended_is_revoked(why: Why) -> None:
    (event,) = told(Left(JOB, why))
    assert event is not None
    assert event.type == "task-revoked"
    assert event.fields["terminated"] is True


def test_each_attempt_has_a_runtime_of_its_own() -> None:
    ending = Ending(State.SUCCEEDED, Usage(3, 37))
    events = told(Began(JOB), Left(JOB, Why.DRAINED), Began(JOB), Ended(JOB, ending, State.SUCCEEDED))
    assert events[-1] is not None
    assert events[-1].fields["runtime"] == 1.0
