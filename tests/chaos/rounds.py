"""One round: work for a fleet, deaths in the middle of it, and what the oracle says once everything has ended.

Knows in which order that happens; who dies and how is the part of `drama`.
"""

import asyncio
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tests.chaos.customers import Customers
from tests.chaos.drama import Drama, Point, Trouble
from tests.chaos.ground import Ground
from tests.chaos.oracle import Kept, Receipt, Verdict, judge
from tests.chaos.orders import Order
from tests.chaos.several import Inside

LOOK_S = 0.01
MOST_WAVES = 6
"""Of work, until every point has been come to."""

SETTLE_S = 30.0
SUPERVISED = 0.6
"""Share of the rounds in which somebody puts a dead worker's jobs back; in the others its lease has to run out."""


@dataclass(frozen=True, slots=True)
class Round:
    """`struck` are the names of the points that were come to; `evidence` the records and journals of whatever is
    wrong."""

    points: tuple[str, ...]
    seed: int
    struck: tuple[str, ...]
    verdict: Verdict
    seconds: float
    evidence: tuple[str, ...] = ()


Waves = Callable[[int], Sequence[Order]]
"""The orders of a round's wave."""


async def play(ground: Ground, points: Sequence[Point], seed: int, waves: Waves) -> Round:
    """The fleet is whole before and after, unless the verdict says that something did not end.

    Each point is another worker's, as long as there are some. Two in a round are never supervised, so that no job is
    counted more deaths than it may have.
    """
    began = time.monotonic()
    names = tuple(point.name for point in points)
    dice = random.Random(f"{'+'.join(names)}/{seed}")
    hosts_stay = len(points) == 1 and points[0].trouble is not Trouble.HOST
    ground.supervised = hosts_stay and dice.random() < SUPERVISED
    workers = dice.sample(ground.workers, len(ground.workers))
    dramas = [Drama(ground, point, dice, workers[at % len(workers)]) for at, point in enumerate(points)]
    receipts = await _through(ground, dramas, waves)
    await _settle(ground)
    snapshot = ground.reader.snapshot(ground.living)
    ground.reader.forget()
    verdict = judge(receipts, snapshot)
    struck = tuple(drama.point.name for drama in dramas if drama.struck)
    wrong = " ".join(fault.where for fault in verdict.faults)
    evidence = tuple(str(line) for job_id, kept in snapshot.jobs.items() if job_id in wrong for line in told(kept))
    return Round(names, seed, struck, verdict, time.monotonic() - began, evidence)


def told(kept: Kept) -> Sequence[object]:
    """A job's record, and its events one by one."""
    return (kept.job, *kept.journal, "")


async def _through(ground: Ground, dramas: Sequence[Drama], waves: Waves) -> list[Receipt]:
    """Wave after wave, until all has been come to."""
    receipts: list[Receipt] = []
    customers = Customers(ground.urls, Inside(ground.queue).submit)
    for drama in dramas:
        drama.begin()
    try:
        for number in range(MOST_WAVES):
            for drama in dramas:
                drama.trouble(number)
            served = asyncio.gather(*(customers.serve(order) for order in waves(number)))
            while not served.done():
                ground.look()
                for drama in dramas:
                    drama.look()
                await asyncio.sleep(LOOK_S)
            receipts += served.result()
            if all(drama.struck for drama in dramas):
                break
    finally:
        for drama in dramas:
            drama.end()
        await customers.close()
    return receipts


async def _settle(ground: Ground) -> None:
    """Until everything has ended, or too long: then the oracle says what has not."""
    give_up_at = time.monotonic() + SETTLE_S
    while time.monotonic() < give_up_at:
        if not ground.reader.unfinished() and ground.whole():
            return
        ground.look()
        await asyncio.sleep(LOOK_S)
