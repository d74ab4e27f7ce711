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

SAMPLE = 100
"""Jobs of a lane among which the oldest is looked for: those in front, where each tenant has its next."""

MOST_LANES = 100
"""Lanes that are looked at, by name; a fleet with more of them is shown in part."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """Ready jobs of one class of a lane; `oldest_s` is the age of the oldest in front since its accept, 0 with none."""

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
            for lane in lanes:
                pipe.zcard(keys.dlq(lane))
                for job_class in JobClass:
                    pipe.zcard(keys.lane(lane, job_class.value))
                    pipe.zrange(keys.lane(lane, job_class.value), 0, SAMPLE - 1)
            answers = await pipe.execute()
        width = 1 + 2 * len(JobClass)
        by_lane = [(lane, answers[i * width : (i + 1) * width]) for i, lane in enumerate(lanes)]
        front = [ids for _, found in by_lane for ids in found[2::2]]
        ages = await _oldest(client, front)
    names = [(lane, job_class) for lane in lanes for job_class in JobClass]
    counts = [int(count) for _, found in by_lane for count in found[1::2]]
    waiting = tuple(
        Waiting(lane, job_class, jobs, oldest_s)
        for (lane, job_class), jobs, oldest_s in zip(names, counts, ages, strict=True)
    )
    return Lanes(waiting, tuple((lane, int(found[0])) for lane, found in by_lane))


async def _oldest(client: redis.asyncio.Redis, groups: Sequence[Sequence[bytes]]) -> list[float]:
    """Seconds since the first accept in each group of job ids."""
    async with client.pipeline(transaction=False) as pipe:
        pipe.time()
        for job_id in (job_id for ids in groups for job_id in ids):
            pipe.hget(keys.job(job_id.decode()), "created_at")
        (seconds, micros), *born = await pipe.execute()
    now_ms, births = seconds * 1000 + micros / 1000, iter(born)
    return [_age(now_ms, [next(births) for _ in ids]) for ids in groups]


def _age(now_ms: float, births: Sequence[bytes | None]) -> float:
    """In seconds; of records that have gone meanwhile nothing is known."""
    known = [int(birth) for birth in births if birth is not None]
    return max(0.0, now_ms - min(known)) / 1000 if known else 0.0
