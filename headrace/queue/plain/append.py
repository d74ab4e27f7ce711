"""append, as `append.lua`: deltas into the journal, fenced and deduplicated (rules 1-4). Knows no text."""

from dataclasses import replace

from headrace.contract.events import Delta, Resumed, Started
from headrace.contract.job import State
from headrace.queue import rules
from headrace.queue.base import Append, AppendReply, FinishReply, Outcome
from headrace.queue.plain.tables import Entry, Tables


def append(tables: Tables, write: Append) -> AppendReply:
    entry = tables.writable(write.lease)
    if isinstance(entry, FinishReply):
        return AppendReply(entry.outcome, state=entry.state)
    listeners, diverged = _begin(tables, entry) if entry.job.state is State.LEASED else 0, False
    for delta in write.deltas:
        verdict = rules.judge(delta, entry.job.next_offset, entry.finished, entry.journal)
        diverged = diverged or verdict is rules.Verdict.DIVERGED
        if verdict is rules.Verdict.GAP:
            have = entry.job.next_offset[delta.choice]
            return AppendReply(Outcome.GAP, entry.job.seq, listeners, delta.choice, have, diverged=diverged)
        if verdict is rules.Verdict.NEW:
            listeners = _add(tables, entry, delta)
    return AppendReply(Outcome.OK, entry.job.seq, listeners, diverged=diverged)


def _begin(tables: Tables, entry: Entry) -> int:
    digests = tuple(dict.fromkeys((*entry.job.digests, entry.job.digest)))
    job = entry.job = replace(entry.job, state=State.RUNNING, digests=digests)
    if entry.started_digest is None:
        entry.started_digest = job.digest
        return tables.write(entry, Started(job.seq + 1, job.attempt, job.owner, job.revision, job.digest))
    return tables.write(entry, Resumed(job.seq + 1, job.attempt, job.owner, job.next_offset, len(digests) == 1))


def _add(tables: Tables, entry: Entry, delta: Delta) -> int:
    offsets = list(entry.job.next_offset)
    offsets[delta.choice] += len(delta.token_ids)
    entry.finished[delta.choice] = delta.finish_reason or ""
    first = entry.job.first_token_at or (tables.clock() if delta.token_ids else None)
    # Past the place where it died, or said to its end: this job kills nobody any more.
    past = sum(offsets) >= entry.job.death_offset + rules.PROGRESS or entry.is_said
    deaths = 0 if past else entry.job.deaths
    entry.job = replace(entry.job, next_offset=tuple(offsets), first_token_at=first, deaths=deaths)
    return tables.write(entry, replace(delta, seq=entry.job.seq + 1))
