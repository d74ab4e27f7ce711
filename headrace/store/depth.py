"""How much work one lane has: jobs that wait and jobs that are held, in numbers and tokens. Knows keys, no decisions.

Cheap whatever the depth: the tokens of a long queue are those of its first jobs, extrapolated.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import redis

from headrace.contract.job import JobClass
from headrace.store import keys
from headrace.store.connection import store_errors

SAMPLE = 200
_GUESS = 256.0  # tokens of a job whose record has gone meanwhile


@dataclass(frozen=True, slots=True)
class Work:
    """`tokens` counts prompts, and of the output what is expected (the claim's estimate)."""

    jobs: int = 0
    tokens: float = 0.0


@dataclass(frozen=True, slots=True)
class Depth:
    """`held` is that of the workers that were asked about; `held_by` counts the jobs of each."""

    queued: Work
    held: Work
    held_by: dict[str, int]


def read_depth(client: redis.Redis, lane: str, workers: Sequence[str]) -> Depth:
    """In two round trips. Raises StoreUnavailable."""
    classes = [keys.lane(lane, job_class.value) for job_class in JobClass]
    with store_errors(), client.pipeline(transaction=False) as pipe:
        for key in classes:
            pipe.zcard(key)
            pipe.zrange(key, 0, SAMPLE - 1)
        for worker in workers:
            pipe.smembers(keys.held(worker))
        answers: list[Any] = pipe.execute()
    waiting, held = answers[: 2 * len(classes)], answers[2 * len(classes) :]
    queued_ids = [job for ids in waiting[1::2] for job in ids][:SAMPLE]
    held_ids = [job for ids in held for job in ids]
    with store_errors(), client.pipeline(transaction=False) as pipe:
        for job in [*queued_ids, *held_ids[:SAMPLE]]:
            pipe.hget(keys.job(job.decode()), "kv_tokens")
        tokens: list[bytes | None] = pipe.execute()
    return Depth(
        queued=_work(sum(waiting[0::2]), tokens[: len(queued_ids)]),
        held=_work(len(held_ids), tokens[len(queued_ids) :]),
        held_by={worker: len(ids) for worker, ids in zip(workers, held, strict=True)},
    )


def _work(jobs: int, sample: Iterable[bytes | None]) -> Work:
    known = [float(tokens) for tokens in sample if tokens is not None]
    mean = sum(known) / len(known) if known else _GUESS
    return Work(jobs, jobs * mean)
