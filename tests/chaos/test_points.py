"""Every point once, on one fleet, and one poisonous job: the short form of `python -m tests.chaos.points`."""

import asyncio
import random
from functools import partial

import pytest

from tests.chaos import orders, poison, rounds
from tests.chaos.ground import running
from tests.chaos.points import FAKE, MODEL_FAKE, POINTS, Line

JOBS = 4


@pytest.mark.timeout(240)
def test_every_point_once() -> None:
    points = random.Random().sample(POINTS, len(POINTS))
    lines = []
    with running(FAKE) as ground:
        for point in points:
            line = Line(point.name, point.rules)
            draw = partial(orders.wave, 0, model=MODEL_FAKE, jobs=JOBS)
            line.add(asyncio.run(rounds.play(ground, point, 0, draw)))
            lines.append(line)
    assert not [line.text() for line in lines if not line.good]


@pytest.mark.timeout(120)
def test_a_poisonous_job_takes_nobody_along() -> None:
    (kind,) = (kind for kind in poison.KINDS if kind.name == "poison")
    with poison.fleet(kind) as ground:
        done = asyncio.run(poison.play(ground, kind, 0, neighbours=8))
    assert done.good(kind), done
