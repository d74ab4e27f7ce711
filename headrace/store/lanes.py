"""What waits on every lane at this moment, for whoever shows it. Knows keys, no decisions.

Bounded: one round trip for the lanes and one for all that is asked of them, whatever waits there.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import redis.asyncio

from headrace.contract.job import JobClass
from headrace.store import keys
from headrace.store.connection import store_errors

MOST_LANES = 100
"""Lanes that are looked at, by name; a fleet with more of them is shown in part."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """Ready jobs of one class of a lane; `oldest_s` is the age of the oldest since its accept, 0 with none."""

    lane: str
    job_class: JobClass
    jobs: int
    oldest_s: float


@dataclass(frozen=True, slots=True)
class Lanes:
    """`dead` counts the dead jobs of each lane."""

    waiting: tuple[Waiting, ...]
    dead: tuple[tuple[str, int], ...]


async def read_lanes(client: redis.asyncio.Redis) -> Lanes:
    """Every lane that has a card. Raises StoreUnavailable."""
    with store_errors():
        members: Any = await client.smembers(keys.CARDS)
        lanes = sorted(lane.decode() for lane in members)[:MOST_LANES]
        async with client.pipeline(transaction=False) as pipe:
            pipe.time()
            for lane in lanes:
                pipe.zcard(keys.dlq(lane))
                for job_class in JobClass:
                    pipe.zcard(keys.lane(lane, job_class.value))
                    pipe.zrange(keys.lane(lane, job_class.value), 0, 0, withscores=True)
            (seconds, micros), *answers = await pipe.execute()
    now_ms = seconds * 1000 + micros / 1000
    width = 1 + 2 * len(JobClass)
    by_lane = [(lane, answers[i * width : (i + 1) * width]) for i, lane in enumerate(lanes)]
    waiting = tuple(one for lane, found in by_lane for one in _waiting(lane, found[1:], now_ms))
    return Lanes(waiting, tuple((lane, int(found[0])) for lane, found in by_lane))


def _waiting(lane: str, answers: Sequence[Any], now_ms: float) -> tuple[Waiting, ...]:
    """A job's score in its lane is the time of its accept."""
    return tuple(
        Waiting(lane, job_class, int(jobs), max(0.0, now_ms - oldest[0][1]) / 1000 if oldest else 0.0)
        for job_class, jobs, oldest in zip(JobClass, answers[0::2], answers[1::2], strict=True)
    )
