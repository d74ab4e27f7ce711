"""How a job leaves this worker by its own doing: finished, retried, refused or given back.

Knows the queue's verbs that take a job out of a worker's hands, and no engine; what the journal lacks is not its part.

Owned by the emitter's thread. Everything here may be said again: every verb is idempotent.
"""

from collections.abc import Callable
from dataclasses import dataclass

import structlog

from headrace.contract.errors import BlobsUnavailable, ErrorInfo, StoreUnavailable
from headrace.contract.generation import Usage
from headrace.contract.job import Job, Lease, State
from headrace.queue.base import Ending, FinishReply, Outcome, Queue
from headrace.telemetry.tracing import trace_fields
from workers.inference.beside import beside
from workers.inference.facts import Ended, Left, Retried, Watcher, Why, why_refused
from workers.inference.inbox import Take
from workers.inference.retry import RetryAfter
from workers.inference.running import RunningJob

BLOB_PAUSE_S = 5.0
"""Between two attempts at a blob store that is away."""

log = structlog.get_logger(__name__)


def named(job: Job) -> dict[str, str]:
    """How a log line says which job it is about."""
    return {"job": job.id, **trace_fields(job.traceparent)}


@dataclass(frozen=True, slots=True)
class Settling:
    """`is_large` says of an end that handing it in may take long, since its result goes to the blob store; `ring` wakes
    the emitter once such an answer is there, and `rest` makes room for others meanwhile."""

    queue: Queue
    tell: Watcher
    rest: Callable[[Lease], None]
    is_large: Callable[[Ending], bool]
    ring: Callable[[], None]
    clock: Callable[[], float]

    def settle(self, job: RunningJob) -> FinishReply | None:
        """Hand in a job that has ended here. None while it has not, or while there is no answer yet.

        GAP asks for a rewind; after any other answer the job is no longer this worker's, and watchers have heard why.
        Raises StoreUnavailable.
        """
        if isinstance(job.fate, RetryAfter):
            return self._retry(job, job.fate) if job.flushed else None
        ended = job.finished or (job.fate is not None and job.flushed)
        if not ended or job.waits(self.clock()):
            return None
        ending = job.ending()
        reply = self._finish(job, ending)
        if reply is not None and reply.outcome is not Outcome.GAP:
            self._tell_end(job.job, ending, reply)
        return reply

    def refuse(self, take: Take, error: ErrorInfo) -> None:
        """A job that can never be begun has failed. If the store is away, its lease runs out and it is tried again."""
        job = take.job
        log.warning("job cannot be begun", code=error.code, reason=error.message, **named(job))
        written = sum(len(choice.token_ids) for choice in take.choices)
        ending = Ending(State.FAILED, Usage(len(job.request.prompt_ids), written), error=error)
        try:
            self._tell_end(job, ending, self.queue.finish(job.lease, ending))
        except StoreUnavailable as away:
            self._leave(job, away)

    def give_back(self, job: Job) -> None:
        """A job that cannot be begun here goes back. If the store is away, its lease runs out instead."""
        try:
            self._tell_release(job, self.queue.release(job.lease), Why.NOT_BEGUN)
        except StoreUnavailable as away:
            self._leave(job, away)

    def hand_back(self, job: RunningJob) -> None:
        """A job that ran here goes back, since this worker ends. Raises StoreUnavailable."""
        reply, ending = self.queue.release(job.job.lease), job.ending()
        if job.handing_in is not None and reply.state is ending.state:
            self.tell(Ended(job.job, ending, ending.state))  # its end was on its way, and came first
        else:
            self._tell_release(job.job, reply, Why.DRAINED)

    def _leave(self, job: Job, away: StoreUnavailable) -> None:
        log.warning("claimed job left to its lease", reason=away.message, **named(job))
        self.tell(Left(job, Why.NOT_BEGUN))

    def _tell_end(self, job: Job, ending: Ending, reply: FinishReply) -> None:
        if reply.outcome is Outcome.OK:
            self.tell(Ended(job, ending, reply.state or ending.state))
        else:
            self.tell(Left(job, why_refused(reply.outcome)))

    def _tell_release(self, job: Job, reply: FinishReply, why: Why) -> None:
        self.tell(Left(job, why if reply.outcome is Outcome.OK else why_refused(reply.outcome)))

    def _retry(self, job: RunningJob, fate: RetryAfter) -> FinishReply:
        reply = self.queue.retry(job.job.lease, fate.in_ms, fate.error)
        if reply.state is State.DEAD:
            self.tell(Ended(job.job, job.ending(), reply.state))
        elif reply.outcome is Outcome.OK:
            self.tell(Retried(job.job, fate.error, fate.in_ms))
        else:
            self.tell(Left(job.job, why_refused(reply.outcome)))
        return reply

    def _finish(self, job: RunningJob, ending: Ending) -> FinishReply | None:
        """A large result is put where it belongs beside this thread."""
        lease, answered = job.job.lease, job.handing_in
        job.handing_in = None
        try:
            if answered is not None:
                return answered.result()
            if not self.is_large(ending):
                return self.queue.finish(lease, ending)
            job.handing_in = beside(lambda: self.queue.finish(lease, ending), self.ring)
            self.rest(lease)
        except BlobsUnavailable as error:
            # Its tokens are journaled; only its result has no place yet. Nobody else waits for that.
            log.warning("no place for a large result, trying again", reason=error.message, **named(job.job))
            job.settle_at = self.clock() + BLOB_PAUSE_S
            self.rest(lease)
        return None
