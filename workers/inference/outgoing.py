"""What goes out of the running jobs: tokens into their journals, ends to the queue. Knows the answers, no engine."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import structlog

from headrace.contract.job import Lease
from headrace.queue.base import Append, AppendReply, Outcome, Queue
from headrace.telemetry.metrics import Recorder
from workers.inference.facts import Began, Delivered, Watcher, why_refused
from workers.inference.roster import Roster
from workers.inference.running import RunningJob
from workers.inference.settling import Settling, named

log = structlog.get_logger(__name__)


def next_due(jobs: Iterable[RunningJob]) -> float:
    """When the first of them wants to write; infinity when none does."""
    return min((due for job in jobs if (due := job.due_at()) is not None), default=math.inf)


def those_due(jobs: Iterable[RunningJob], now: float) -> list[RunningJob]:
    return [job for job in jobs if (due := job.due_at()) is not None and due <= now]


@dataclass(frozen=True, slots=True)
class Outgoing:
    """Does what the answers ask for: a job goes back to where its journal is, or off the roster.

    `past_death` is told the lease of a job that need not run alone any more. Owned by the emitter's thread; everything
    may be said again.
    """

    queue: Queue
    roster: Roster
    settling: Settling
    past_death: Callable[[Lease], None]
    metrics: Recorder
    tell: Watcher
    clock: Callable[[], float]

    def append(self, jobs: list[RunningJob]) -> None:
        """Everything that their journals lack, in one pipeline. Raises StoreUnavailable."""
        writes = [(job, job.append()) for job in jobs if not job.finished]
        writes = [(job, write) for job, write in writes if write.deltas or not job.begun]
        if not writes:
            return
        began = self.clock()
        replies = self.queue.append([write for _, write in writes])
        self.metrics.observe("headrace_worker_append_seconds", self.clock() - began)
        for (job, write), reply in zip(writes, replies, strict=True):
            self._on_reply(job, write, reply)

    def settle(self) -> None:
        """Hand in the jobs that have ended here. Raises StoreUnavailable."""
        for job in self.roster.jobs():
            reply = self.settling.settle(job)
            if reply is None:
                if job.gone is not None:
                    self.roster.drop(job, job.gone)
            elif reply.outcome is Outcome.GAP:
                self.roster.rewind(job, reply.choice, reply.have)
            else:
                self.roster.forget(job)

    def hand_back(self) -> None:
        """Each as soon as its tokens are journaled. The step in hand is not waited for: whoever goes on makes the same
        tokens, sooner than an engine with a long step or a hung one would say them. Raises StoreUnavailable."""
        for job in self.roster.jobs():
            self.settling.hand_back(job)
            self.roster.forget(job)

    def _on_reply(self, job: RunningJob, write: Append, reply: AppendReply) -> None:
        if reply.outcome is Outcome.OK:
            self._tell_of(job, write)
            job.appended(write.deltas, reply.listeners)
            if reply.diverged:
                self.metrics.add("headrace_worker_diverged_total")
                log.error("journal has other tokens than this attempt made", **named(job.job))
            if not job.may_kill():
                self.past_death(job.job.lease)
        elif reply.outcome is Outcome.GAP:
            self.roster.rewind(job, reply.choice, reply.have)
        else:
            if reply.outcome is Outcome.LOST:
                self.metrics.add("headrace_worker_leases_lost_total")
            self.roster.forget(job, why_refused(reply.outcome))

    def _tell_of(self, job: RunningJob, write: Append) -> None:
        """What an accepted write is to watchers; asked before the job counts it as journaled."""
        if not job.begun:
            self.tell(Began(job.job))
        if tokens := sum(len(delta.token_ids) for delta in write.deltas):
            first = not any(choice.sent for choice in job.choices)
            self.tell(Delivered(job.job, tokens, first))
