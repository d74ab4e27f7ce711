"""What the emitter is told, and the one queue in which it is told. Knows no sender and no receiver."""

import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass

from headrace.contract.job import Job, Lease
from headrace.store.journal import Journaled
from workers.inference.facts import Why
from workers.inference.messages import Ready, Stepped
from workers.inference.transcript import TextStream

MAX_STEPS = 512
"""Steps that may wait for the emitter. Then the pipe fills and the engine pauses: memory stays bounded."""

NewStream = Callable[[tuple[str, ...]], TextStream]
"""Makes the text side of one choice, given its stop strings."""


@dataclass(frozen=True, slots=True)
class Take:
    """A job was claimed; run it on from what earlier attempts journaled of each choice."""

    job: Job
    choices: tuple[Journaled, ...]


@dataclass(frozen=True, slots=True)
class EngineUp:
    generation: int
    ready: Ready
    new_stream: NewStream


@dataclass(frozen=True, slots=True)
class EngineStepped:
    generation: int
    stepped: Stepped


@dataclass(frozen=True, slots=True)
class EngineDown:
    """The child is gone. `died` says that nobody asked it to go, so its jobs count a death."""

    generation: int
    died: bool


@dataclass(frozen=True, slots=True)
class Drop:
    """The lease is another's, or its job was cancelled: stop without another word to the queue."""

    lease: Lease
    why: Why


@dataclass(frozen=True, slots=True)
class DropAll:
    """The leases can no longer be trusted."""

    why: Why


@dataclass(frozen=True, slots=True)
class Drain:
    """Journal what is known and give everything back, now and whatever is still to come."""


@dataclass(frozen=True, slots=True)
class Close:
    """Nothing more is to come: end once everything is back, or `at_once`, with what the store would not take back."""

    at_once: bool = False


@dataclass(frozen=True, slots=True)
class Answered:
    """A call made beside the emitter has its answer: look again at what has ended."""


Message = Answered | Take | EngineUp | EngineStepped | EngineDown | Drop | DropAll | Drain | Close


class Inbox:
    """Any thread puts; the emitter gets. Only `put_step` can wait."""

    def __init__(self) -> None:
        self._queue: queue.SimpleQueue[Message] = queue.SimpleQueue()
        self._room = threading.Semaphore(MAX_STEPS)

    def put(self, message: Message) -> None:
        self._queue.put(message)

    def put_step(self, message: EngineStepped, timeout_s: float) -> bool:
        """False when there was no room in time: ask whether anybody still wants it, and try again."""
        if not self._room.acquire(timeout=timeout_s):
            return False
        self._queue.put(message)
        return True

    def get(self, timeout_s: float) -> Message | None:
        """The next message, or None when there was none in time."""
        try:
            message = self._queue.get(timeout=timeout_s) if timeout_s > 0 else self._queue.get_nowait()
        except queue.Empty:
            return None
        if isinstance(message, EngineStepped):
            self._room.release()
        return message
