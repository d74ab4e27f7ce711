"""Every point once, several in a round: the short form of `python -m tests.chaos.points`."""

import asyncio
import random
from collections.abc import Iterator
from dataclasses import replace
from functools import partial

import pytest

from tests.chaos import orders, rounds
from tests.chaos.drama import Point, Trouble, Who
from tests.chaos.ground import running
from tests.chaos.points import FAKE, MODEL_FAKE, POINTS

JOBS = 4
LEASE_MS = 400


def together() -> Iterator[tuple[Point, ...]]:
    """Rounds over all points: one of each worker's and one of the gateway's at a time, in any order. Whoever takes the
    whole host of another away has a round of its own. With so little work each strikes where it is come to first; and
    only one engine is killed at a time, or a job would be counted three deaths and be given up, as it should."""
    points = [replace(point, most=min(point.most, 1)) for point in random.sample(POINTS, len(POINTS))]
    hosts = [point for point in points if point.trouble is Trouble.HOST]
    gateways = [point for point in points if point.who is Who.GATEWAY]
    killers = [point for point in points if point.who is Who.ENGINE or point.trouble is Trouble.CRASH]
    workers = [point for point in points if point not in (*hosts, *gateways, *killers)]
    yield from ((point,) for point in hosts)
    while workers or gateways or killers:
        ours = [*killers[:1], *workers[: 2 - len(killers[:1])], *gateways[:1]]
        killers, workers, gateways = ([one for one in kind if one not in ours] for kind in (killers, workers, gateways))
        yield tuple(ours)


@pytest.mark.timeout(240)
def test_every_point_once() -> None:
    struck: set[str] = set()
    with running(FAKE, lease_ms=LEASE_MS) as ground:
        for points in together():
            draw = partial(orders.wave, 0, model=MODEL_FAKE, jobs=JOBS)
            done = asyncio.run(rounds.play(ground, points, 0, draw))
            assert not done.verdict.faults, "\n".join(map(str, (done.points, *done.verdict.faults, *done.evidence)))
            struck.update(done.struck)
    assert {point.name for point in POINTS} == struck
