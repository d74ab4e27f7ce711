"""What a claim may answer, given the model: not who comes next, but who must not have been taken, passed or left.

Order is judged as far as PROTOCOL fixes it: class, then near deadlines, then a tenant's own order of arrival in a lane.
Which tenant's turn it is, and which lane's, stays the queue's business here.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from headrace.contract.job import Job, JobClass, State
from headrace.queue.base import ClaimRequest
from tests.stateful.model import Grant, Model, Record

ALONE_FROM = 2


@dataclass(frozen=True, slots=True)
class Answer:
    """`taken` in the order of the answer; `left` are the states after it of jobs that were ready before it; `passed`
    says since when a ready job has been passed over."""

    taken: Sequence[Job]
    left: Mapping[str, State]
    passed: Mapping[str, int]
    revisions: Mapping[str, str] = field(default_factory=dict)


def judge(model: Model, request: ClaimRequest, answer: Answer) -> None:
    """AssertionError for an answer that breaks a rule. The model is still as before the claim."""
    ready = {r.job.id: r for r in model.records.values() if r.state is State.QUEUED and r.job.lane in request.lanes}
    taken = [ready[job.id] for job in answer.taken]
    assert len({record.job.id for record in taken}) == len(taken) <= request.max_jobs
    holds = model.held_by(request.worker)
    if any(record.deaths >= ALONE_FROM for record in holds):
        assert not taken, "a job that runs alone was joined"
    for record in taken:
        assert _may_take(model, request, record), "a job was taken that is not for this worker"
        if record.deaths >= ALONE_FROM:
            assert len(taken) == 1, "a job that has killed twice was given company"
            assert not holds
            assert not request.held
    assert sum(record.kv_tokens for record in taken) <= request.kv_tokens, "more was taken than there is room for"
    for job_id, state in answer.left.items():
        record = ready[job_id]
        if state is State.EXPIRED:
            assert record.deadline is not None
            assert record.deadline <= model.now
        elif state is State.FAILED:
            assert _is_gone(request, record, answer.revisions)
        else:
            assert state is State.QUEUED
    remaining = [record for record in ready.values() if answer.left.get(record.job.id) is State.QUEUED]
    _judge_order(model, request, taken, remaining)
    _judge_diligence(model, request, answer, taken, remaining)


def carry_out(model: Model, request: ClaimRequest, answer: Answer, leases: Sequence[Mapping[str, Job]]) -> list[Grant]:
    """Write the answer into the model. `leases` has each taken job as each queue gave it."""
    grants = []
    for given in leases:
        job_id = next(iter(given.values())).id
        record = model.records[job_id]
        grant = Grant(job_id, request.worker, record.epoch + 1, {name: job.lease for name, job in given.items()})
        model.take(record, grant, request.digest)
        grants.append(grant)
    for job_id, state in answer.left.items():
        if state is State.EXPIRED:
            model.expire(model.records[job_id])
        elif state is State.FAILED:
            model.fail_for_revision(model.records[job_id])
    return grants


def _may_take(model: Model, request: ClaimRequest, record: Record) -> bool:
    job = record.job
    largest = len(job.request.prompt_ids) + job.request.n * job.request.max_tokens
    return (
        job.revision == request.revision
        and job.digest_wanted in ("", request.digest)
        and job.needs <= request.schema
        and largest <= request.capacity
        and (record.deadline is None or record.deadline > model.now)
    )


def _is_gone(request: ClaimRequest, record: Record, revisions: Mapping[str, str]) -> bool:
    """Rule 10: neither this worker's revision, nor that of its lane's card."""
    card = revisions.get(record.job.lane, record.job.revision)
    return record.job.revision not in (request.revision, card)


def _rank(model: Model, record: Record) -> tuple[int, int, int]:
    order = tuple(JobClass).index(record.job.job_class)
    if record.deadline is not None and record.deadline <= model.now + model.timing.urgent_ms:
        return order, 0, record.deadline
    return order, 1, 0


def _is_before(model: Model, one: Record, other: Record) -> bool:
    """Whether PROTOCOL has `one` come before `other`."""
    ranks = _rank(model, one), _rank(model, other)
    roads = [(record.job.lane, record.job.tenant) for record in (one, other)]
    same_road = ranks[0] == ranks[1] and ranks[0][1] == 1 and roads[0] == roads[1]
    return ranks[0] < ranks[1] or (same_road and one.arrived_at < other.arrived_at)


def _judge_order(model: Model, request: ClaimRequest, taken: Sequence[Record], remaining: Sequence[Record]) -> None:
    for earlier, later in pairwise(taken):
        assert not _is_before(model, later, earlier), "taken in the wrong order"
    room = request.kv_tokens - sum(record.kv_tokens for record in taken)
    for left in remaining:
        fits = _may_take(model, request, left) and left.deaths < ALONE_FROM
        for at, record in enumerate(taken):
            had = room + sum(each.kv_tokens for each in taken[at:])
            if fits and left.kv_tokens <= had:
                assert not _is_before(model, left, record), "a job was taken before its betters"


def _judge_diligence(
    model: Model, request: ClaimRequest, answer: Answer, taken: Sequence[Record], remaining: Sequence[Record]
) -> None:
    """Nothing that could have been taken was left; what did not fit has been noted, and is waited for in the end."""
    starving = [
        record
        for record in remaining
        if (since := answer.passed.get(record.job.id)) and model.now - since >= model.timing.starvation_ms
    ]
    for hungry in starving:
        blocks = _may_take(model, request, hungry)
        assert not blocks or not any(_is_before(model, hungry, record) for record in taken), "a starving job was passed"
    alone = any(record.deaths >= ALONE_FROM for record in (*taken, *model.held_by(request.worker)))
    if len(taken) == request.max_jobs or alone or starving:
        return
    room = request.kv_tokens - sum(record.kv_tokens for record in taken)
    busy = request.held or taken or model.held_by(request.worker)
    for record in remaining:
        assert record.deadline is None or record.deadline > model.now, "a job past its deadline was left"
        assert not _is_gone(request, record, answer.revisions), "a job whose revision is gone was left"
        if _may_take(model, request, record):
            assert record.kv_tokens > room or (record.deaths >= ALONE_FROM and busy), "a job that fits was left"
            assert record.job.id in answer.passed, "a job was passed over and nobody noted it"
