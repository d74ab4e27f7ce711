"""One death and the trouble that leads up to it: who is sentenced to what, and when. Judges nothing."""

import os
import random
import signal
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from headrace.contract.job import State
from tests.chaos.doomed_engine import MADNESS
from tests.chaos.ground import Ground, Place


class Who(StrEnum):
    """Who is sentenced."""

    WORKER = "worker"
    ENGINE = "engine"
    GATEWAY = "any gateway"
    SWEEPER = "any sweeper"


STOPPED = (1.2, 2.5)
"""How long a gateway or an engine is stopped, in leases."""

LONGEST_STOP = 10.0
"""Of a worker that is stopped until another one goes on with its jobs, in leases."""


class Trouble(StrEnum):
    """What has to happen besides, for the point to be come to."""

    NONE = "-"
    DRAIN = "it is asked to drain"
    RESTART = "it is started anew"
    ERROR = "a request fails in its engine"
    CRASH = "its engine dies"
    HOST = "another worker's host is gone"
    STOP = "it is stopped for longer than a lease, then continued"


@dataclass(frozen=True, slots=True)
class Point:
    """`moment` is what the doomed process counts, up to `most` of them; `rules` are those of PROTOCOL it tries."""

    name: str
    who: Who
    moment: str
    most: int
    rules: str
    trouble: Trouble = Trouble.NONE


class Drama:
    """`look` is called again and again. `worker` is who is sentenced, or whose engine; gateways and sweepers are all
    sentenced, and the first to come to the point saves the others."""

    def __init__(self, ground: Ground, point: Point, dice: random.Random, worker: Place) -> None:
        self.point = point
        self.struck = False
        self._ground = ground
        self._dice = dice
        self._place = dice.choice(ground.gateways) if point.who is Who.GATEWAY else worker
        self._other = dice.choice([place for place in ground.workers if place is not worker])
        self._files = self._sentenced()
        self._serial = 0
        self._trouble_due = False
        self._continue_at = 0.0
        self._stopped: int | None = None
        self._missed: tuple[str, ...] = ()

    def begin(self) -> None:
        ground, point, dice = self._ground, self.point, self._dice
        if point.trouble in (Trouble.ERROR, Trouble.CRASH):
            moment = "child.error" if point.trouble is Trouble.ERROR else "child.step"
            ground.sentence([self._place.engine_sentence], moment, dice.randint(1, 10))
        if point.trouble is not Trouble.STOP:
            self._serial = ground.sentence(self._files, point.moment, dice.randint(1, point.most))
        if point.trouble is Trouble.RESTART:
            self._signal(self._place.pid, signal.SIGKILL)

    def trouble(self, wave: int) -> None:
        """A wave of work begins. After two in vain the first such moment will do: a drain, say, that had only one job
        to give back."""
        if wave > 1 and self._serial and not self.struck:
            self._serial = self._ground.sentence(self._files, self.point.moment, 1)
        self._trouble_due = self.point.trouble in (Trouble.DRAIN, Trouble.HOST, Trouble.STOP)

    def look(self) -> None:
        if self._trouble_due and self._held() > 1:
            self._trouble_due = False
            self._make_trouble()
        if self._stopped is not None and (time.monotonic() > self._continue_at or self._runs_elsewhere()):
            self._go_on()
        if self._serial and not self.struck and self._ground.struck(self._files, self._serial):
            self.struck = True
            self._ground.acquit(self._files)

    def end(self) -> None:
        """An engine that took the place of a doomed one cannot be sentenced, so its worker makes room for another."""
        self._go_on()
        self._ground.acquit([*self._files, self._place.engine_sentence])
        if self.point.who is Who.ENGINE or self.point.trouble in (Trouble.ERROR, Trouble.CRASH):
            self._signal(self._place.pid, signal.SIGTERM)

    def _sentenced(self) -> Sequence[Path]:
        match self.point.who:
            case Who.ENGINE:
                return [self._place.engine_sentence]
            case Who.SWEEPER:
                return [place.sentence for place in self._ground.places if place is not self._other]
            case Who.GATEWAY:
                return [place.sentence for place in self._ground.gateways]
            case Who.WORKER:
                return [self._place.sentence]

    def _held(self) -> int:
        """Jobs in the hands that the trouble is for; a gateway has its own in all hands."""
        if self.point.who is Who.GATEWAY:
            return sum(map(self._ground.held, self._ground.workers))
        return self._ground.held(self._other if self.point.trouble is Trouble.HOST else self._place)

    def _make_trouble(self) -> None:
        match self.point.trouble:
            case Trouble.DRAIN:
                self._signal(self._place.pid, signal.SIGTERM)
            case Trouble.HOST:
                self._signal(self._other.pid, signal.SIGKILL)
            case Trouble.STOP:
                self._stop()

    def _stop(self) -> None:
        engine = self._place.engine() if self.point.who is Who.ENGINE else None
        self._stopped = engine.pid if engine is not None else self._place.pid
        lease_s = self._ground.settings.queue.lease_ms / 1000
        self._signal(self._stopped, signal.SIGSTOP)
        leases = self._dice.uniform(*STOPPED)
        if self.point.who is Who.WORKER:
            self._ground.sentence([self._place.engine_sentence], MADNESS, 1)
            self._missed, leases = self._ground.jobs_of(self._place), LONGEST_STOP
        self._continue_at = time.monotonic() + lease_s * leases

    def _runs_elsewhere(self) -> bool:
        """A stopped worker wakes while others go on with what it had: nobody may ever see what it has in its hands by
        then, and so that it would be seen, its engine has gone on meanwhile with wrong tokens."""
        if not self._missed or self._ground.held(self._place):
            return False
        jobs = [self._ground.queue.get(job_id) for job_id in self._missed]
        return any(job is not None and job.state is State.RUNNING for job in jobs)

    def _go_on(self) -> None:
        if self._stopped is not None:
            self._ground.acquit([self._place.engine_sentence])
            self._signal(self._stopped, signal.SIGCONT)
            self._stopped, self._missed, self.struck = None, (), True

    @staticmethod
    def _signal(pid: int, number: int) -> None:
        with suppress(ProcessLookupError):  # somebody else was faster
            os.kill(pid, number)
