"""One round: work for a fleet, a death in the middle of it, and what the oracle says once everything has ended.

Knows when to sentence whom, and which trouble leads up to a point; the points themselves are named in `points`.
"""

import asyncio
import os
import random
import signal
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from tests.chaos.customers import Customers
from tests.chaos.ground import Ground
from tests.chaos.oracle import Receipt, Verdict, judge
from tests.chaos.orders import Order
from tests.chaos.several import Inside

LOOK_S = 0.01
MOST_WAVES = 6
"""Of work, until the point has been come to."""

SETTLE_S = 30.0


class Who(StrEnum):
    """Who is sentenced."""

    WORKER = "worker"
    ENGINE = "engine"
    GATEWAY = "any gateway"
    SWEEPER = "any sweeper"


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


@dataclass(frozen=True, slots=True)
class Round:
    """`struck` says whether the point was come to."""

    point: str
    seed: int
    struck: bool
    verdict: Verdict
    seconds: float


Waves = Callable[[int], Sequence[Order]]
"""The orders of a round's wave."""


async def play(ground: Ground, point: Point, seed: int, waves: Waves) -> Round:
    """The fleet is whole before and after, unless the verdict says that something did not end."""
    began = time.monotonic()
    dice = random.Random(f"{point.name}/{seed}")
    ground.supervised = point.trouble is not Trouble.HOST and dice.random() < 0.6
    drama = Drama(ground, point, dice)
    customers = Customers(ground.urls, Inside(ground.queue).submit)
    receipts: list[Receipt] = []
    try:
        drama.begin()
        for number in range(MOST_WAVES):
            drama.trouble()
            served = asyncio.gather(*(customers.serve(order) for order in waves(number)))
            while not served.done():
                ground.look()
                drama.look()
                await asyncio.sleep(LOOK_S)
            receipts += served.result()
            if drama.struck:
                break
        drama.end()
        await _settle(ground)
    finally:
        await customers.close()
    verdict = judge(receipts, ground.reader.snapshot(ground.living))
    ground.reader.forget()
    return Round(point.name, seed, drama.struck, verdict, time.monotonic() - began)


async def _settle(ground: Ground) -> None:
    """Until everything has ended, or too long: then the oracle says what has not."""
    give_up_at = time.monotonic() + SETTLE_S
    while time.monotonic() < give_up_at:
        if not ground.reader.unfinished() and ground.whole():
            return
        ground.look()
        await asyncio.sleep(LOOK_S)


class Drama:
    """One death and the trouble that leads to it. `look` is called again and again."""

    def __init__(self, ground: Ground, point: Point, dice: random.Random) -> None:
        self._ground = ground
        self._point = point
        self._dice = dice
        self._place = dice.choice(ground.gateways if point.who is Who.GATEWAY else ground.workers)
        self._other = dice.choice([worker for worker in ground.workers if worker is not self._place])
        self._trouble_due = False
        self._continue_at: float | None = None
        self._stopped: int | None = None
        self.struck = False

    def begin(self) -> None:
        ground, point, dice = self._ground, self._point, self._dice
        if point.trouble in (Trouble.ERROR, Trouble.CRASH):
            moment = "child.error" if point.trouble is Trouble.ERROR else "child.step"
            ground.sentence([self._place.engine_sentence], moment, dice.randint(1, 10))
        if point.trouble is not Trouble.STOP:
            ground.sentence(self._files(), point.moment, dice.randint(1, point.most))
        if point.trouble is Trouble.RESTART:
            os.kill(self._place.pid, signal.SIGKILL)

    def trouble(self) -> None:
        """A wave begins."""
        self._trouble_due = self._point.trouble in (Trouble.DRAIN, Trouble.HOST, Trouble.STOP)

    def look(self) -> None:
        if self._trouble_due and self._held() > 1:
            self._trouble_due = False
            self._make_trouble()
        if self._continue_at is not None and time.monotonic() > self._continue_at:
            self._go_on()
        if not self.struck and self._point.trouble is not Trouble.STOP and self._ground.struck(self._files()):
            self.struck = True
            self._ground.acquit()

    def end(self) -> None:
        """An engine that took the place of a doomed one cannot be sentenced, so its worker makes room for another."""
        self._go_on()
        self._ground.acquit()
        if self._point.who is Who.ENGINE or self._point.trouble in (Trouble.ERROR, Trouble.CRASH):
            os.kill(self._place.pid, signal.SIGTERM)

    def _held(self) -> int:
        """Jobs in the hands that the trouble is for; a gateway has its own in all hands."""
        if self._point.who is Who.GATEWAY:
            return sum(map(self._ground.held, self._ground.workers))
        return self._ground.held(self._other if self._point.trouble is Trouble.HOST else self._place)

    def _files(self) -> Iterable[Path]:
        match self._point.who:
            case Who.ENGINE:
                return [self._place.engine_sentence]
            case Who.SWEEPER:
                return [place.sentence for place in self._ground.places if place is not self._other]
            case Who.GATEWAY:
                return [place.sentence for place in self._ground.gateways]
            case _:
                return [self._place.sentence]

    def _make_trouble(self) -> None:
        match self._point.trouble:
            case Trouble.DRAIN:
                os.kill(self._place.pid, signal.SIGTERM)
            case Trouble.HOST:
                os.kill(self._other.pid, signal.SIGKILL)
            case Trouble.STOP:
                self._stop()

    def _stop(self) -> None:
        engine = self._place.engine() if self._point.who is Who.ENGINE else None
        self._stopped = engine.pid if engine is not None else self._place.pid
        lease_s = self._ground.settings.queue.lease_ms / 1000
        os.kill(self._stopped, signal.SIGSTOP)
        self._continue_at = time.monotonic() + lease_s * self._dice.uniform(1.2, 2.5)

    def _go_on(self) -> None:
        if self._stopped is not None:
            with suppress(ProcessLookupError):
                os.kill(self._stopped, signal.SIGCONT)
            self._stopped, self._continue_at, self.struck = None, None, True
