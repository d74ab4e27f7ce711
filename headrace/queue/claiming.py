"""Who is claimed next, as a value: the order of ready jobs and what becomes of each. Knows no store and no clock.

`claim.lua` takes the same decisions; the contract suite holds both to them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, auto

from headrace.contract.job import Job, JobClass
from headrace.queue import rules
from headrace.queue.base import ClaimRequest

_CLASSES = tuple(JobClass)


class Act(Enum):
    TAKE = auto()
    PASS_OVER = auto()
    """It does not fit now: remember since when."""
    EXPIRE = auto()
    REVISION_GONE = auto()


@dataclass(frozen=True, slots=True)
class Ready:
    """A job in its lane; `passed_at` says since when it has been passed over, `turn` where its lane and class are."""

    job: Job
    passed_at: int | None = None
    turn: int = 0


@dataclass(frozen=True, slots=True)
class Moment:
    """What a claim depends on besides the jobs. `revisions` are those of the lanes' cards."""

    now: int
    urgent_ms: int
    starvation_ms: int
    revisions: Mapping[str, str]


def order(each: Ready, urgent_before: int) -> tuple[int, int, int, str]:
    """Sorts ready jobs: by class; in it those with a near deadline first; then by how far each is past the turn."""
    job = each.job
    rank = _CLASSES.index(job.job_class)
    if job.deadline_at is not None and job.deadline_at <= urgent_before:
        return rank, 0, job.deadline_at, job.id
    return rank, 1, job.place - each.turn, job.id


def _may_run(job: Job, request: ClaimRequest) -> bool:
    """Whether this worker could ever run it; else it is left to another."""
    right_digest = job.digest_wanted in ("", request.digest)
    return right_digest and job.needs <= request.schema and rules.largest(job) <= request.capacity


def decide(request: ClaimRequest, ready: Sequence[Ready], moment: Moment) -> list[tuple[str, Act]]:
    """Job ids and what becomes of them; a job that is not named stays as it is.

    A job passed over for `starvation_ms` holds the budget for itself: nothing behind it is taken. Nor is anything
    behind `MOST_PASSED_OVER` of them: a full worker on a deep lane asks often, and must not look through all of it.
    """
    acts: list[tuple[str, Act]] = []
    budget, taken, passed_over, now = request.kv_tokens, 0, 0, moment.now
    for each in sorted(ready, key=lambda each: order(each, now + moment.urgent_ms)):
        job = each.job
        if taken >= request.max_jobs:
            break
        if job.deadline_at is not None and job.deadline_at <= now:
            acts.append((job.id, Act.EXPIRE))
        elif job.revision != request.revision:
            if moment.revisions.get(job.lane, job.revision) != job.revision:
                acts.append((job.id, Act.REVISION_GONE))
        elif not _may_run(job, request):
            continue
        elif job.kv_tokens > budget or (rules.runs_alone(job) and request.held + taken > 0):
            acts.append((job.id, Act.PASS_OVER))
            passed_over += 1
            if passed_over >= rules.MOST_PASSED_OVER:
                break
            if each.passed_at is not None and now - each.passed_at >= moment.starvation_ms:
                break
        else:
            acts.append((job.id, Act.TAKE))
            taken += 1
            budget -= job.kv_tokens
            if rules.runs_alone(job):
                break
    return acts
