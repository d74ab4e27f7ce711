"""The only writer of journals: the engine's steps in, appends and endings out. Knows no pipe and no Redis.

One thread owns every running job. It never waits for longer than one call to the store, and when the store is away it
keeps what it has and tries again; whether the leases still hold is for `leases` to say.
"""

import math
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import structlog

from headrace.contract.errors import EngineFailure, ErrorInfo, HeadraceError, NoProgress, StoreUnavailable
from headrace.queue.base import Append, AppendReply, Ending, Outcome, Queue, ReapRequest
from headrace.telemetry.metrics import Recorder
from workers.inference import retry
from workers.inference.facts import Began, Delivered, Left, Watcher, Why, why_refused
from workers.inference.holdings import Holdings
from workers.inference.inbox import (
    Answered,
    Close,
    Drain,
    Drop,
    DropAll,
    EngineDown,
    EngineStepped,
    EngineUp,
    Inbox,
    Message,
    Take,
)
from workers.inference.messages import AbortAll, AbortRequests, Command, Output, Ready, StepStats
from workers.inference.metrics import record_reap, record_step
from workers.inference.running import RunningJob
from workers.inference.settling import Settling, named
from workers.inference.transcript import Transcript

IDLE_S = 0.5
MOST_MESSAGES = 64
"""Heard before the next write, however fast the engine is."""

ABSENT_S = 2.0
"""The emitter looks twice a second. Who has not looked for longer was stopped, or waited for the store."""

STORE_PAUSE_S = 0.2
"""Between two attempts at a store that is away."""

log = structlog.get_logger(__name__)


class Engine(Protocol):
    """The parent's end of the pipe. A command for an earlier generation is dropped."""

    def send(self, generation: int, command: Command) -> None: ...
    def kill(self, generation: int, why: str) -> None: ...


class Gate(Protocol):
    """Whether intake may claim."""

    def open(self, ready: Ready) -> None: ...
    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class EmitterParts:
    """What the emitter works with; all of it safe to call from its thread.

    `is_large` says of an end that handing it in may take long, since its result goes to the blob store.
    """

    worker: str
    queue: Queue
    engine: Engine
    gate: Gate
    holdings: Holdings
    metrics: Recorder
    progress_timeout_s: float
    tell: Watcher = lambda _: None
    is_large: Callable[[Ending], bool] = lambda _: False
    clock: Callable[[], float] = time.monotonic
    dice: Callable[[], float] = random.random


class Emitter:
    """`run` is the thread; `handle` and `write` are its two halves."""

    def __init__(self, parts: EmitterParts, inbox: Inbox) -> None:
        self._parts = parts
        self._inbox = inbox
        self._jobs: dict[str, RunningJob] = {}
        self._requests: dict[str, tuple[RunningJob, Transcript]] = {}
        self._engine: EngineUp | None = None
        self._stepped_at = 0.0
        self._looked_at = self._back_at = parts.clock()
        self._killed = 0
        self._reap_owed = False
        self._draining = False
        self._closing = self._hurried = False
        self._store_at = -math.inf
        self._store_away = False
        self._settling = Settling(
            queue=parts.queue,
            tell=parts.tell,
            rest=parts.holdings.rest,
            is_large=parts.is_large,
            ring=lambda: inbox.put(Answered()),
            clock=parts.clock,
        )
        self.ended = False

    def run(self) -> None:
        while not self.ended:
            patience = self._patience()
            for _ in range(MOST_MESSAGES):
                message = self._inbox.get(patience)
                if message is None:
                    break
                self.handle(message)
                patience = 0.0
            self.watch()
            self.write()
            self.ended = self.ended or self._hurried

    def step_age_s(self) -> float | None:
        """How long the engine has not stepped although it has work; None while it has none. For any thread."""
        return self._parts.clock() - self._stepped_at if self._requests else None

    # -- what comes in

    def handle(self, message: Message) -> None:
        match message:
            case EngineStepped():
                self._on_step(message)
            case Take():
                self._on_take(message)
            case Drop():
                self._parts.holdings.drop(message.lease)  # also of a job that has not come here yet
                job = self._jobs.get(message.lease.job_id)
                if job is not None and job.job.lease == message.lease:
                    self._drop(job, message.why)
            case DropAll():
                for job in list(self._jobs.values()):
                    self._drop(job, message.why)
                self._send(AbortAll())
            case EngineUp():
                self._engine = message
                self._stepped_at = self._parts.clock()
                self._open_gate()
            case EngineDown():
                self._on_down(message)
            case Drain():
                self._draining = True
            case Close(at_once):
                self._closing, self._hurried = True, self._hurried or at_once
            case Answered():
                pass  # the write that follows looks

    def _on_take(self, take: Take) -> None:
        if self._engine is None or self._draining:
            self._settling.give_back(take.job)
            self._parts.holdings.drop(take.job.lease)
            return
        now = self._parts.clock()
        if not self._requests:
            self._stepped_at = now
        try:
            job = RunningJob(take, self._engine.new_stream, now)
        except HeadraceError as error:
            # Submit refuses such requests; a record that is there all the same harms no other job.
            self._settling.refuse(take, error.info())
            self._parts.holdings.drop(take.job.lease)
            return
        if (earlier := self._jobs.get(take.job.id)) is not None:
            self._forget(earlier, Why.LEASE_LOST)  # claimed again before it was told so
        self._jobs[take.job.id] = job
        for request_id, choice in job.open_requests():
            self._requests[request_id] = (job, choice)
            self._send(job.add_request(request_id, choice))

    def _on_step(self, message: EngineStepped) -> None:
        now = self._parts.clock()
        self._stepped_at = now
        for output in message.stepped.outputs:
            self._on_output(output, now)
        if message.stepped.stats is not None:
            self._on_stats(message.stepped.stats, now)

    def _on_output(self, output: Output, now: float) -> None:
        found = self._requests.get(output.request_id)
        if found is None:
            return
        job, choice = found
        job.scheduled, job.progress_at = True, now
        if output.error is not None:
            self._fail(job, output.error)
            return
        try:
            cut = choice.push(
                output.offset,
                output.token_ids,
                output.finish_reason,
                now,
                output.logprobs,
                output.prompt_logprobs,
                output.cached_tokens,
            )
        except ValueError as error:
            self._fail(job, EngineFailure(f"The engine lost count: {error}.").info())
            return
        if choice.finish_reason is not None:
            del self._requests[output.request_id]
        if cut and output.finish_reason is None:
            self._send(AbortRequests((output.request_id,)))

    def _on_stats(self, stats: StepStats, now: float) -> None:
        record_step(self._parts.metrics, stats)
        for request_id in stats.scheduled:
            if request_id in self._requests:
                job, _ = self._requests[request_id]
                job.scheduled, job.progress_at = True, now

    def _on_down(self, message: EngineDown) -> None:
        if self._engine is not None and message.generation == self._engine.generation:
            self._engine = None
            self._requests.clear()
            record_step(self._parts.metrics, StepStats())  # what it ran and held is gone with it
        self._parts.gate.close()
        if not message.died:
            return
        self._parts.metrics.add("headrace_worker_engine_deaths_total")
        self._reap_owed = True
        # What came out before the death is worth keeping: the next attempt starts behind it.
        self.write(everything=True)
        for job in list(self._jobs.values()):
            self._drop(job, Why.ENGINE_DIED)

    # -- what goes out

    def watch(self) -> None:
        """Kill an engine that does not step; take back a request that does not get on.

        Only time in which somebody looked counts: a process that was held still heard nothing, whoever spoke.
        """
        now = self._parts.clock()
        self._back_at = now if now - self._looked_at > ABSENT_S else self._back_at
        self._looked_at = now
        engine, timeout = self._engine, self._parts.progress_timeout_s
        if engine is None or engine.generation == self._killed:
            return
        if self._requests and now - max(self._stepped_at, self._back_at) > timeout:
            self._killed = engine.generation
            self._parts.engine.kill(engine.generation, f"no step for {timeout:g} s")
        for job in list(self._jobs.values()):
            if job.stalled(self._stepped_at - timeout, since=self._back_at):
                self._fail(job, NoProgress(f"The request made no progress for {timeout:g} s.").info())

    def write(self, everything: bool = False) -> None:
        """Append what is due in one pipeline, then end what has ended. `everything` waits for no tokens to gather."""
        now = self._parts.clock()
        if now < self._store_at and not everything:
            return
        everything = everything or self._draining
        try:
            self._append([job for job in self._jobs.values() if everything or _is_due(job, now)])
            self._settle()
            if self._reap_owed:
                self._reap()
            if self._draining:
                self._hand_back()
            self._store_away = False
        except StoreUnavailable as error:
            if not self._store_away:
                log.warning("store is away, tokens wait in memory", reason=error.message, jobs=len(self._jobs))
            self._store_away = True
            self._store_at = self._parts.clock() + STORE_PAUSE_S
        self.ended = self._closing and not self._jobs

    def _append(self, jobs: list[RunningJob]) -> None:
        writes = [(job, job.append()) for job in jobs if not job.finished]
        writes = [(job, write) for job, write in writes if write.deltas or not job.begun]
        if not writes:
            return
        began = self._parts.clock()
        replies = self._parts.queue.append([write for _, write in writes])
        self._parts.metrics.observe("headrace_worker_append_seconds", self._parts.clock() - began)
        for (job, write), reply in zip(writes, replies, strict=True):
            self._on_reply(job, write, reply)

    def _on_reply(self, job: RunningJob, write: Append, reply: AppendReply) -> None:
        if reply.outcome is Outcome.OK:
            self._tell_of(job, write)
            job.appended(write.deltas, reply.listeners)
            if reply.diverged:
                self._parts.metrics.add("headrace_worker_diverged_total")
                log.error("journal has other tokens than this attempt made", **named(job.job))
            if not job.may_kill():
                self._parts.holdings.past_death(job.job.lease)
        elif reply.outcome is Outcome.GAP:
            self._rewind(job, reply.choice, reply.have)
        else:
            if reply.outcome is Outcome.LOST:
                self._parts.metrics.add("headrace_worker_leases_lost_total")
            self._forget(job, why_refused(reply.outcome))

    def _settle(self) -> None:
        """Hand in the jobs that have ended here."""
        for job in list(self._jobs.values()):
            reply = self._settling.settle(job)
            if reply is None:
                if job.gone is not None:
                    self._drop(job, job.gone)
            elif reply.outcome is Outcome.GAP:
                self._rewind(job, reply.choice, reply.have)
            else:
                self._forget(job)

    def _hand_back(self) -> None:
        """Each as soon as its tokens are journaled. The step in hand is not waited for: whoever goes on makes the same
        tokens, sooner than an engine with a long step or a hung one would say them."""
        for job in list(self._jobs.values()):
            self._settling.hand_back(job)
            self._forget(job)

    def _rewind(self, job: RunningJob, choice: int, have: int) -> None:
        try:
            job.rewind(choice, have)
        except ValueError as error:
            self._fail(job, EngineFailure(f"The journal cannot be continued: {error}.").info())

    def _fail(self, job: RunningJob, error: ErrorInfo) -> None:
        """Its tokens so far are journaled before its fate is told."""
        if job.fate is None:
            job.fate = retry.decide(error, job.job.retries, self._parts.dice())
            log.warning("request failed", code=error.code, reason=error.message, **named(job.job))
        self._abort(job)

    def _abort(self, job: RunningJob) -> None:
        open_ids = tuple(request_id for request_id, (owner, _) in self._requests.items() if owner is job)
        for request_id in open_ids:
            del self._requests[request_id]
        if open_ids:
            self._send(AbortRequests(open_ids))

    def _tell_of(self, job: RunningJob, write: Append) -> None:
        """What an accepted write is to watchers; asked before the job counts it as journaled."""
        if not job.begun:
            self._parts.tell(Began(job.job))
        if tokens := sum(len(delta.token_ids) for delta in write.deltas):
            first = not any(choice.sent for choice in job.choices)
            self._parts.tell(Delivered(job.job, tokens, first))

    def _drop(self, job: RunningJob, why: Why) -> None:
        """It is another's, unless its end is on its way: then the answer to that says what became of it."""
        if job.handing_in is None:
            self._forget(job, why)
        else:
            job.gone = why

    def _forget(self, job: RunningJob, why: Why | None = None) -> None:
        """`why` is told to watchers; without it they have heard of the end already."""
        self._abort(job)
        del self._jobs[job.job.id]
        self._parts.holdings.drop(job.job.lease)
        if why is not None:
            self._parts.tell(Left(job.job, why))
            log.debug("job left", why=why, **named(job.job))

    def _reap(self) -> None:
        reply = self._parts.queue.reap(ReapRequest(worker=self._parts.worker, died=True))
        self._reap_owed = False
        record_reap(self._parts.metrics, reply)
        log.warning("jobs of the dead engine went back", requeued=len(reply.requeued), dead=len(reply.dead))
        self._open_gate()

    def _open_gate(self) -> None:
        """Not before the dead engine's jobs are back: the reap would take new claims for its victims."""
        if self._engine is not None and not self._reap_owed and not self._draining:
            self._parts.gate.open(self._engine.ready)

    def _send(self, command: Command) -> None:
        if self._engine is not None:
            self._parts.engine.send(self._engine.generation, command)

    def _patience(self) -> float:
        """How long nothing will be due, in seconds."""
        now = self._parts.clock()
        if self._store_away or self._reap_owed:
            return max(0.0, self._store_at - now)
        dues = (due for job in self._jobs.values() if (due := job.due_at()) is not None)
        return min(IDLE_S, max(0.0, min(dues, default=math.inf) - now))


def _is_due(job: RunningJob, now: float) -> bool:
    due = job.due_at()
    return due is not None and due <= now
