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

from headrace.contract.errors import HeadraceError, NoProgress, StoreUnavailable
from headrace.queue.base import Ending, Queue, ReapRequest
from headrace.telemetry.metrics import Recorder
from workers.inference.current_engine import CurrentEngine, Engine
from workers.inference.facts import Watcher, Why
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
from workers.inference.messages import AbortAll, Ready, StepStats
from workers.inference.metrics import record_reap, record_step
from workers.inference.outgoing import Outgoing, next_due, those_due
from workers.inference.roster import Roster
from workers.inference.settling import Settling

IDLE_S = 0.5
MOST_MESSAGES = 64
"""Heard before the next write, however fast the engine is."""

STORE_PAUSE_S = 0.2
"""Between two attempts at a store that is away."""

log = structlog.get_logger(__name__)


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
        self._engine = CurrentEngine(parts.engine, parts.progress_timeout_s, parts.clock())
        self._roster = Roster(send=self._engine.send, forgotten=parts.holdings.drop, tell=parts.tell, dice=parts.dice)
        self._settling = Settling(
            queue=parts.queue,
            tell=parts.tell,
            rest=parts.holdings.rest,
            is_large=parts.is_large,
            ring=lambda: inbox.put(Answered()),
            clock=parts.clock,
        )
        self._outgoing = Outgoing(
            queue=parts.queue,
            roster=self._roster,
            settling=self._settling,
            past_death=parts.holdings.past_death,
            metrics=parts.metrics,
            tell=parts.tell,
            clock=parts.clock,
        )
        self._reap_owed = False
        self._draining = False
        self._closing = self._hurried = False
        self._store_at = -math.inf
        self._store_away = False
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
        return self._engine.age_s(self._parts.clock()) if self._roster.busy else None

    # -- what comes in

    def handle(self, message: Message) -> None:
        match message:
            case EngineStepped():
                self._on_step(message)
            case Take():
                self._on_take(message)
            case Drop():
                self._parts.holdings.drop(message.lease)  # also of a job that has not come here yet
                job = self._roster.find(message.lease)
                if job is not None:
                    self._roster.drop(job, message.why)
            case DropAll():
                self._roster.drop_all(message.why)
                self._engine.send(AbortAll())
            case EngineUp():
                self._engine.up(message, self._parts.clock())
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
        new_stream = self._engine.new_stream
        if new_stream is None or self._draining:
            self._settling.give_back(take.job)
            self._parts.holdings.drop(take.job.lease)
            return
        now = self._parts.clock()
        if not self._roster.busy:
            self._engine.stepped(now)
        try:
            self._roster.take(take, new_stream, now)
        except HeadraceError as error:
            # Submit refuses such requests; a record that is there all the same harms no other job.
            self._settling.refuse(take, error.info())
            self._parts.holdings.drop(take.job.lease)

    def _on_step(self, message: EngineStepped) -> None:
        now = self._parts.clock()
        self._engine.stepped(now)
        for output in message.stepped.outputs:
            self._roster.hear(output, now)
        stats = message.stepped.stats
        if stats is not None:
            record_step(self._parts.metrics, stats)
            self._roster.scheduled(stats.scheduled, now)

    def _on_down(self, message: EngineDown) -> None:
        if self._engine.down(message.generation):
            self._roster.engine_gone()
            record_step(self._parts.metrics, StepStats())  # what it ran and held is gone with it
        self._parts.gate.close()
        if not message.died:
            return
        self._parts.metrics.add("headrace_worker_engine_deaths_total")
        self._reap_owed = True
        # What came out before the death is worth keeping: the next attempt starts behind it.
        self.write(everything=True)
        self._roster.drop_all(Why.ENGINE_DIED)

    # -- what goes out

    def watch(self) -> None:
        """Kill an engine that does not step; take back a request that does not get on."""
        limit = self._engine.watch(self._parts.clock(), self._roster.busy)
        if limit is None:
            return
        for job in self._roster.jobs():
            if job.stalled(limit):
                waited = f"for {self._parts.progress_timeout_s:g} s"
                self._roster.fail(job, NoProgress(f"The request made no progress {waited}.").info())

    def write(self, everything: bool = False) -> None:
        """Append what is due in one pipeline, then end what has ended. `everything` waits for no tokens to gather."""
        now = self._parts.clock()
        if now < self._store_at and not everything:
            return
        jobs = self._roster.jobs()
        try:
            self._outgoing.append(jobs if everything or self._draining else those_due(jobs, now))
            self._outgoing.settle()
            if self._reap_owed:
                self._reap()
            if self._draining:
                self._outgoing.hand_back()
            self._store_away = False
        except StoreUnavailable as error:
            if not self._store_away:
                log.warning("store is away, tokens wait in memory", reason=error.message, jobs=len(self._roster.jobs()))
            self._store_away = True
            self._store_at = self._parts.clock() + STORE_PAUSE_S
        self.ended = self._closing and not self._roster.jobs()

    def _reap(self) -> None:
        reply = self._parts.queue.reap(ReapRequest(worker=self._parts.worker, died=True))
        self._reap_owed = False
        record_reap(self._parts.metrics, reply)
        log.warning("jobs of the dead engine went back", requeued=len(reply.requeued), dead=len(reply.dead))
        self._open_gate()

    def _open_gate(self) -> None:
        """Not before the dead engine's jobs are back: the reap would take new claims for its victims."""
        ready = self._engine.ready
        if ready is not None and not self._reap_owed and not self._draining:
            self._parts.gate.open(ready)

    def _patience(self) -> float:
        """How long nothing will be due, in seconds."""
        now = self._parts.clock()
        if self._store_away or self._reap_owed:
            return max(0.0, self._store_at - now)
        return min(IDLE_S, max(0.0, next_due(self._roster.jobs()) - now))
