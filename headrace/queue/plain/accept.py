"""accept, as `accept.lua`: record, idempotency key and first event; held back, the job is queued by the next accept of
it. Knows no tokens."""

from dataclasses import replace

from headrace.contract.events import Accepted
from headrace.contract.job import Job, State
from headrace.queue.base import AcceptReply, Outcome
from headrace.queue.plain.queueing import enqueue
from headrace.queue.plain.tables import Entry, Tables


def accept(tables: Tables, job: Job, body_hash: str, hold: bool) -> AcceptReply:
    """`job.deadline_at` says in how many milliseconds."""
    known_body, known_id = tables.idempotency.get((job.tenant, job.idem_key), (body_hash, job.id))
    if job.idem_key and known_id != job.id:
        return AcceptReply(Outcome.EXISTS if known_body == body_hash else Outcome.CONFLICT, known_id)
    letter = tables.entries.get(job.redrive_of)
    if letter is not None and letter.job.redriven_as not in ("", job.id):
        return AcceptReply(Outcome.EXISTS, letter.job.redriven_as)
    if known := tables.entries.get(job.id):
        if known.job.state is State.ACCEPTED and not hold:
            enqueue(tables, known)
        return AcceptReply(Outcome.OK, job.id, known.job.created_at)
    now = tables.clock()
    deadline = None if job.deadline_at is None else now + job.deadline_at
    fresh = replace(job, created_at=now, deadline_at=deadline, next_offset=(0,) * job.request.n)
    entry = tables.entries[job.id] = Entry(fresh, finished=[""] * job.request.n)
    if job.idem_key:
        tables.idempotency[job.tenant, job.idem_key] = (body_hash, job.id)
    if letter is not None:
        letter.job = replace(letter.job, redriven_as=job.id)
    tables.write(entry, Accepted(1, job.id, now))
    if not hold:
        enqueue(tables, entry)
    return AcceptReply(Outcome.OK, job.id, now)
