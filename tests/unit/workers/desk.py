"""An emitter on the memory queue, with time in hand and the engine's end of the pipe written down."""

import threading
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from headrace.contract.errors import BlobsUnavailable, ErrorInfo, StoreUnavailable
from headrace.contract.events import Event
from headrace.contract.generation import FrozenRequest, Sampling, TokenLogprobs
from headrace.contract.job import Job, Lease, State
from headrace.queue.base import Append, AppendReply, ClaimRequest, Ending, FinishReply, ReapReply, ReapRequest
from headrace.queue.memory import MemoryQueue
from headrace.store.journal import Journaled, join
from headrace.telemetry.metrics import Recorder
from headrace.text.detokenizer import TextStream
from headrace.text.tokenizer import Tokenizer
from tests.unit.workers.jobs import make_job
from workers.inference.emitter import Emitter, EmitterParts
from workers.inference.facts import Fact
from workers.inference.fake_engine import FakeEngine, Knobs, byte_tokenizer
from workers.inference.holdings import Holdings
from workers.inference.inbox import EngineStepped, EngineUp, Inbox, Take
from workers.inference.messages import Command, Output, Ready, Stepped, StepStats
from workers.inference.running import RunningJob

TOKENIZER = Tokenizer(byte_tokenizer())
READY = FakeEngine(Knobs()).ready()
WORKER = "w_test"
LARGE = 200
"""From so many tokens on a result goes to the blob store."""


class MovableQueue(MemoryQueue):
    """The memory queue, which can be away, and counts the round trips of appends.

    `no_place` are jobs whose result is large, while the blob store is away; a job of `held_up` is not finished before
    its event is set.
    """

    away = False
    no_place: frozenset[str] = frozenset()
    held_up: Mapping[str, threading.Event] = MappingProxyType({})
    round_trips = 0

    def append(self, writes: Sequence[Append]) -> list[AppendReply]:
        self._reach()
        self.round_trips += 1
        return super().append(writes)

    def finish(self, lease: Lease, ending: Ending) -> FinishReply:
        self._reach()
        if lease.job_id in self.held_up:
            self.held_up[lease.job_id].wait(10)
        if lease.job_id in self.no_place:
            raise BlobsUnavailable("The test took the blob store away.")
        return super().finish(lease, ending)

    def release(self, lease: Lease) -> FinishReply:
        self._reach()
        return super().release(lease)

    def reap(self, request: ReapRequest) -> ReapReply:
        self._reach()
        return super().reap(request)

    def _reach(self) -> None:
        if self.away:
            raise StoreUnavailable("The test took it away.")


def request_id(job: Job, choice: int = 0) -> str:
    """What the engine calls a choice of a job that was claimed so."""
    return f"{job.id}:{choice}:{job.lease_id}"


class Desk:
    """Everything around one emitter. It is the emitter's engine and its gate."""

    def __init__(self) -> None:
        self.now = 100.0
        self.listeners = 0
        self.texts: list[str] = []
        self.commands: list[Command] = []
        self.killed: list[int] = []
        self.facts: list[Fact] = []
        self._open = False
        self.queue = MovableQueue(lambda: int(self.now * 1000), publish=self._publish)
        self.holdings = Holdings(on_room=lambda: None)
        self.metrics = Recorder()
        parts = EmitterParts(
            worker=WORKER,
            queue=self.queue,
            engine=self,
            gate=self,
            holdings=self.holdings,
            metrics=self.metrics,
            progress_timeout_s=30.0,
            tell=self.facts.append,
            clock=lambda: self.now,
            dice=lambda: 0.0,
            is_large=lambda ending: any(len(choice.token_ids) >= LARGE for choice in ending.choices),
        )
        self.inbox = Inbox()
        self.emitter = Emitter(parts, self.inbox)
        self.engine_up(1)

    # -- the engine's end, and intake's

    def send(self, generation: int, command: Command) -> None:
        self.commands.append(command)

    def kill(self, generation: int, why: str) -> None:
        self.killed.append(generation)

    def open(self, ready: Ready) -> None:
        self._open = True

    def close(self) -> None:
        self._open = False

    # -- what a test does

    def engine_up(self, generation: int) -> None:
        self.emitter.handle(EngineUp(generation, READY, lambda stop: TextStream(TOKENIZER, stop)))

    def take(
        self,
        name: str = "job_1",
        *,
        stop: tuple[str, ...] = (),
        max_tokens: int = 500,
        logprobs: int | None = None,
        n: int = 1,
        **fields: Any,
    ) -> Job:
        """Accept a job, claim it, and let the emitter begin it. `logprobs` are asked for of output and prompt; `fields`
        are the job's own."""
        request = FrozenRequest(
            tuple(b"hi"), Sampling(seed=1), max_tokens, stop, n, logprobs=logprobs, prompt_logprobs=logprobs
        )
        job = make_job(name, state=State.ACCEPTED, lease_id="", epoch=0, request=request, **fields)
        self.queue.accept(job)
        return self.take_again()

    def take_again(self) -> Job:
        """Claim the next job and let the emitter go on with it."""
        (job,) = self.queue.claim(ClaimRequest(("m@stable",), WORKER, "r", "d", 10_000, 10_000, 1))
        self.holdings.take([job])
        self.emitter.handle(Take(job, self.journaled(job.id)))
        self.emitter.write()
        return job

    def journaled(self, job_id: str) -> tuple[Journaled, ...]:
        job = self.queue.get(job_id)
        assert job is not None
        return join(self.queue.events(job_id), job.request.n)

    def claims(self) -> bool:
        """Whether the gate is open."""
        return self._open

    def running(self, job: Job) -> RunningJob:
        """As the emitter has it, for what no message can bring about."""
        found = self.emitter._roster.find(job.lease)
        assert found is not None
        return found

    def ended(self) -> bool:
        return self.emitter.ended

    def step(self, job: Job, text: str, offset: int, finish: str | None = None, error: ErrorInfo | None = None) -> None:
        """One step of the engine that brought this much of one job; then the emitter's turn to write."""
        entries = tuple(TokenLogprobs(-byte / 8) for byte in text.encode()) if job.request.logprobs is not None else ()
        prompt = (None, TokenLogprobs(-0.5)) if job.request.prompt_logprobs is not None and not offset else ()
        ids = tuple(text.encode())
        self.hear(Output(request_id(job), offset, ids, finish, error, entries, prompt))

    def hear(self, *outputs: Output) -> None:
        """One step of the engine, in its own words."""
        self.emitter.handle(EngineStepped(1, Stepped(outputs, StepStats())))
        self.turn()

    def turn(self, seconds: float = 0.0) -> None:
        """Let time pass while the emitter looks now and then, as it does; then let it look and write."""
        for _ in range(int(seconds)):
            self.now += 1.0
            self.emitter.watch()
        self.now += seconds % 1
        self.emitter.watch()
        self.emitter.write()

    def text(self, job: Job) -> str:
        """What the journal has of it."""
        return bytes(self.journaled(job.id)[0].token_ids).decode()

    def state(self, job: Job) -> State:
        return self.record(job).state

    def record(self, job: Job) -> Job:
        record = self.queue.get(job.id)
        assert record is not None
        return record

    def events(self, job: Job) -> list[Event]:
        return self.queue.events(job.id)

    def count(self, name: str) -> float:
        return float(self.metrics.snapshot()["counters"][name])

    def _publish(self, job_id: str, event: dict[str, Any]) -> int:
        self.texts.append(event.get("text", ""))
        return self.listeners
