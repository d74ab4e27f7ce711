"""What becomes of a job in the words of Celery's task events, as Flower and `celery events` show it. Sends nothing."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from headrace.contract.job import Job, State
from workers.inference.facts import Began, Claimed, Delivered, Ended, Fact, Left, Retried, Why


@dataclass(frozen=True, slots=True)
class TaskEvent:
    """`type` as Celery spells it; `fields` go beside hostname, clock and pid. `at` is the time of day in seconds."""

    type: str
    at: float
    fields: Mapping[str, Any] = field(default_factory=dict)


class JobEvents:
    """Turns facts into events. Remembers only when each running job began, to say how long it took."""

    def __init__(self) -> None:
        self._began: dict[str, float] = {}

    def of(self, fact: Fact, at: float) -> TaskEvent | None:
        """None for what the console does not show. No prompt and no text leaves by this way."""
        match fact:
            case Delivered():
                return None
            case Claimed(job):
                return TaskEvent("task-received", at, _introduction(job))
            case Began(job):
                self._began[job.id] = at
                return TaskEvent("task-started", at, {"uuid": job.id})
        runtime = at - self._began.pop(fact.job.id, at)
        match fact:
            case Retried(job, error, in_ms):
                return _again(job, at, f"{error.code}: {error.message} (again in {in_ms} ms)")
            case Ended(job, ending, State.SUCCEEDED):
                result = f"{ending.usage.completion_tokens} tokens"
                return TaskEvent("task-succeeded", at, {"uuid": job.id, "result": result, "runtime": runtime})
            case Ended(job, ending, state):
                said = f"{ending.error.code}: {ending.error.message}" if ending.error else str(state)
                return TaskEvent("task-failed", at, {"uuid": job.id, "exception": said, "traceback": ""})
            case Left(job, Why.CANCELLED | Why.ENDED_ELSEWHERE):
                revoked = {"uuid": job.id, "terminated": True, "signum": None, "expired": False}
                return TaskEvent("task-revoked", at, revoked)
            case Left(job, why):
                # Not "revoked": Celery's view of a task never comes back from there, and this job goes on elsewhere.
                return _again(job, at, why)


def _introduction(job: Job) -> dict[str, Any]:
    shown = {"model": job.model, "class": str(job.job_class), "prompt_tokens": len(job.request.prompt_ids)}
    return {
        "uuid": job.id,
        "name": f"headrace.job.{job.kind}",
        "args": "()",
        "kwargs": repr(shown),
        "retries": job.retries,
        "eta": None,
        "expires": None,
        "root_id": job.id,
        "parent_id": None,
    }


def _again(job: Job, at: float, why: str) -> TaskEvent:
    return TaskEvent("task-retried", at, {"uuid": job.id, "exception": why, "traceback": ""})
