"""Heartbeats: what each worker says of itself once a second. Knows the hash, not what anyone concludes from it.

A beat that stops is a death when the store was up all the while (rule 8), so the TTL is short and the writer is the
worker's parent alone.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import redis
import redis.asyncio

from headrace.store import keys
from headrace.store.connection import store_errors

TTL_MS = 10_000
_FORGET_MS = 60_000
"""A worker that has not beaten for so long leaves the list of workers."""


@dataclass(frozen=True, slots=True)
class Beat:
    """`capacity` is the whole KV budget in tokens, `held` a number of jobs, `step_age_ms` the time since the engine
    last stepped (None while it has nothing to do), `metrics` the worker's own snapshot, `at` server time in ms.
    """

    worker: str
    lane: str
    state: str
    revision: str = ""
    digest: str = ""
    capacity: int = 0
    held: int = 0
    step_age_ms: int | None = None
    metrics: Mapping[str, Any] = field(default_factory=dict)
    at: int = 0


_TEXTS = ("worker", "lane", "state", "revision", "digest")
_NUMBERS = ("capacity", "held", "step_age_ms", "at")


def write_beat(client: redis.Redis, beat: Beat, ttl_ms: int = TTL_MS) -> None:
    """Write all fields and start the TTL anew; `at` is set from the server's clock."""
    with store_errors(), client.pipeline(transaction=True) as pipe:
        seconds, micros = client.time()
        fields: dict[Any, Any] = {name: getattr(beat, name) for name in _TEXTS}
        fields |= {name: getattr(beat, name) for name in _NUMBERS if getattr(beat, name) is not None}
        at = seconds * 1000 + micros // 1000
        fields |= {"at": at, "metrics": json.dumps(beat.metrics, separators=(",", ":"))}
        key = keys.worker(beat.worker)
        # A whole new hash: a field of the last beat that this one lacks must not stay.
        pipe.delete(key)
        pipe.hset(key, mapping=fields)
        pipe.pexpire(key, ttl_ms)
        pipe.zadd(keys.WORKERS, {beat.worker: at})
        pipe.zremrangebyscore(keys.WORKERS, "-inf", at - _FORGET_MS)
        pipe.execute()


def drop_beat(client: redis.Redis, worker: str) -> None:
    """The last word of a worker that ends in order and holds nothing."""
    with store_errors(), client.pipeline(transaction=True) as pipe:
        pipe.delete(keys.worker(worker))
        pipe.zrem(keys.WORKERS, worker)
        pipe.execute()


def read_beats(client: redis.Redis) -> tuple[Beat, ...]:
    """Everyone who beats now, by name."""
    with store_errors():
        names: Any = client.zrange(keys.WORKERS, 0, -1)
        with client.pipeline(transaction=False) as pipe:
            for name in names:
                pipe.hgetall(keys.worker(name.decode()))
            return _beats(pipe.execute())


class BeatReader:
    """The same for an event loop."""

    def __init__(self, client: redis.asyncio.Redis) -> None:
        self._client = client

    async def all(self) -> tuple[Beat, ...]:
        """Everyone who beats now, by name."""
        with store_errors():
            names: Any = await self._client.zrange(keys.WORKERS, 0, -1)
            async with self._client.pipeline(transaction=False) as pipe:
                for name in names:
                    pipe.hgetall(keys.worker(name.decode()))
                return _beats(await pipe.execute())


def _beats(answers: Iterable[Mapping[bytes, bytes]]) -> tuple[Beat, ...]:
    # A worker that is still on the list may have stopped.
    return tuple(sorted((_beat(fields) for fields in answers if fields), key=lambda beat: beat.worker))


def _beat(fields: Mapping[bytes, bytes]) -> Beat:
    texts = {name: fields[name.encode()].decode() for name in _TEXTS if name.encode() in fields}
    numbers = {name: int(fields[name.encode()]) for name in _NUMBERS if name.encode() in fields}
    return Beat(**texts, **numbers, metrics=json.loads(fields.get(b"metrics", b"{}")))  # type: ignore[arg-type]
