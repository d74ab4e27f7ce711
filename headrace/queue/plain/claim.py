"""claim, as `claim.lua`: what was decided on the ready jobs is carried out. Knows no order: that is `claiming`'s."""

import secrets
from dataclasses import replace

from headrace.contract.job import Job, State
from headrace.queue import rules
from headrace.queue.base import ClaimRequest
from headrace.queue.claiming import Act, Moment, Ready, decide
from headrace.queue.plain.ending import end_job
from headrace.queue.plain.queueing import give_turn
from headrace.queue.plain.tables import Entry, Tables


def claim(tables: Tables, request: ClaimRequest) -> tuple[Job, ...]:
    mine = tables.held_by(request.worker)
    if any(rules.runs_alone(entry.job) for entry in mine):
        return ()
    queued = [entry for entry in tables.entries.values() if entry.job.state is State.QUEUED]
    ready = [_ready(tables, each) for each in queued if each.job.lane in request.lanes]
    request = replace(request, held=request.held or len(mine))
    moment = Moment(tables.clock(), tables.timing.urgent_ms, tables.timing.starvation_ms, tables.cards)
    claimed: list[Job] = []
    for job_id, act in decide(request, ready, moment):
        entry = tables.entries[job_id]
        if act is Act.TAKE:
            claimed.append(_take(tables, entry, request))
        elif act is Act.PASS_OVER:
            entry.passed_at = min(tables.clock(), entry.passed_at or tables.clock())
        elif act is Act.EXPIRE:
            end_job(tables, entry, State.EXPIRED)
        else:
            end_job(tables, entry, State.FAILED, rules.REVISION_GONE)
    return tuple(claimed)


def _ready(tables: Tables, entry: Entry) -> Ready:
    return Ready(entry.job, entry.passed_at, tables.turns.get((entry.job.lane, entry.job.job_class), 0))


def _take(tables: Tables, entry: Entry, request: ClaimRequest) -> Job:
    now, job = tables.clock(), entry.job
    give_turn(tables, job, now)
    entry.job = replace(
        job,
        state=State.LEASED,
        epoch=job.epoch + 1,
        owner=request.worker,
        digest=request.digest,
        lease_id=secrets.token_hex(8),
        attempt=job.attempt + 1,
        leased_at=now,
    )
    entry.until, entry.passed_at = now + tables.timing.lease_ms, None
    return entry.job
