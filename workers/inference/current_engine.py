"""The engine that runs now, as the emitter sees it: what it is sent, and whether it still steps. Knows no jobs."""

from typing import Protocol

from workers.inference.inbox import EngineUp, NewStream
from workers.inference.messages import Command, Ready

ABSENT_S = 2.0
"""The emitter looks twice a second. Who has not looked for longer was stopped, or waited for the store."""


class Engine(Protocol):
    """The parent's end of the pipe. A command for an earlier generation is dropped."""

    def send(self, generation: int, command: Command) -> None: ...
    def kill(self, generation: int, why: str) -> None: ...


class CurrentEngine:
    """None runs at first. Owned by the emitter; only `age_s` is for any thread. Times are seconds of one clock."""

    def __init__(self, engine: Engine, progress_timeout_s: float, now: float) -> None:
        self._engine = engine
        self._timeout_s = progress_timeout_s
        self._up: EngineUp | None = None
        self._killed = 0
        self._stepped_at = 0.0
        self._looked_at = self._back_at = now

    @property
    def ready(self) -> Ready | None:
        """What it said when it was ready; None while none runs."""
        return self._up.ready if self._up is not None else None

    @property
    def new_stream(self) -> NewStream | None:
        """Makes the text side of what it says; None while none runs."""
        return self._up.new_stream if self._up is not None else None

    def up(self, message: EngineUp, now: float) -> None:
        self._up = message
        self._stepped_at = now

    def down(self, generation: int) -> bool:
        """Whether that was the one that ran."""
        if self._up is None or self._up.generation != generation:
            return False
        self._up = None
        return True

    def stepped(self, now: float) -> None:
        """It has stepped, or has had no reason to until now."""
        self._stepped_at = now

    def age_s(self, now: float) -> float:
        """How long it has not stepped."""
        return now - self._stepped_at

    def send(self, command: Command) -> None:
        """To nobody while none runs."""
        if self._up is not None:
            self._engine.send(self._up.generation, command)

    def watch(self, now: float, busy: bool) -> float | None:
        """Kill one that is `busy` and does not step. Answers since when a request must have got on, given that others
        did; None while that can be held against nobody.

        Only time in which somebody looked counts: a process that was held still heard nothing, whoever spoke.
        """
        self._back_at = now if now - self._looked_at > ABSENT_S else self._back_at
        self._looked_at = now
        if self._up is None or self._up.generation == self._killed:
            return None
        if busy and now - max(self._stepped_at, self._back_at) > self._timeout_s:
            self._killed = self._up.generation
            self._engine.kill(self._killed, f"no step for {self._timeout_s:g} s")
        limit = self._stepped_at - self._timeout_s
        return limit if self._back_at < limit else None
