"""finish, as `finish.lua`: the worker's end of a job, refused while the journal lacks tokens of it. Knows no causes."""

from headrace.contract.job import Lease, State
from headrace.queue import rules
from headrace.queue.base import Ending, FinishReply, Outcome
from headrace.queue.plain.ending import end_job
from headrace.queue.plain.tables import Tables


def finish(tables: Tables, lease: Lease, ending: Ending) -> FinishReply:
    entry = tables.writable(lease)
    if isinstance(entry, FinishReply):
        known = tables.entries.get(lease.job_id)
        mine = known is not None and known.job.ended and known.job.lease == lease
        return FinishReply(Outcome.OK, entry.state) if mine else entry
    if ending.state is State.SUCCEEDED:
        lengths = {choice.index: len(choice.token_ids) for choice in ending.choices}
        for index, have in enumerate(entry.job.next_offset):
            if not entry.finished[index] or lengths.get(index) != have:
                return FinishReply(Outcome.GAP, choice=index, have=have)
        entry.result = tuple(sorted(ending.choices, key=lambda choice: choice.index))
    error = None if ending.state is State.SUCCEEDED else ending.error or rules.UNSAID
    end_job(tables, entry, ending.state, error, cached_tokens=ending.usage.cached_tokens, keep_lease=True)
    return FinishReply(Outcome.OK, ending.state)
