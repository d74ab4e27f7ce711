"""Which jobs there are, newest first: pages of records by time of birth. Knows the index; writes no job."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import redis.asyncio

from headrace.contract.ids import born_ms
from headrace.contract.job import Job
from headrace.contract.job_query import JobQuery
from headrace.store import keys, records
from headrace.store.connection import store_errors

BATCH = 100
MOST_EXAMINED = 1_000
"""Records that one page looks at; a filter that few jobs pass takes several pages to find them."""

FOREVER = 2**53
"""Milliseconds beyond any job's; what a sorted set's score can still hold exactly."""

_LISTED = (
    *("id", "model", "lane", "revision", "class", "kind", "state", "request", "next_offset", "attempt"),
    *("created_at", "queued_at", "leased_at", "first_token_at", "ended_at", "deadline_at"),
    *("error", "usage", "metadata", "digests", "digest_wanted"),
    *("fallback_of", "redrive_of", "redriven_as", "replay_of"),
)
"""What a list shows and a record cannot do without; a prompt's ids may be megabytes."""


@dataclass(frozen=True, slots=True)
class JobPage:
    """Newest first. `has_more` speaks of the direction of the query, and `last_id` (with `before`: `first_id`) is the
    job to go on from: the last one shown or, where the search was cut short, the last one looked at."""

    jobs: tuple[Job, ...]
    first_id: str | None
    last_id: str | None
    has_more: bool


@dataclass(frozen=True, slots=True, order=True)
class _Place:
    """Where a job stands in the index: by time, then by id, as Redis orders them."""

    at: int
    job_id: str


class JobIndex:
    """Reads the index of one tenant. For one event loop. Raises StoreUnavailable."""

    def __init__(self, client: redis.asyncio.Redis, tenant: str = "default") -> None:
        self._client = client
        self._key = keys.job_index(tenant)
        self._tidied = 0

    async def page(self, query: JobQuery) -> JobPage:
        """Jobs without their prompt ids."""
        place = await self._place(query.before or query.after)
        found: list[Job] = []
        examined = 0
        while examined < MOST_EXAMINED:
            places = await self._next(query, place)
            for job in await self._records(places):
                if query.takes(job):
                    if len(found) == query.limit:
                        return _page(query, found, "", has_more=True)
                    found.append(job)
            examined += len(places)
            if len(places) < BATCH:
                return _page(query, found, "", has_more=False)
            place = places[-1]
        return _page(query, found, places[-1].job_id, has_more=True)

    async def tidy(self) -> int:
        """Look at the next batch of the index, oldest first and round again, and drop those whose record is gone.
        Answers how many those were. Anyone may call it at any time."""
        with store_errors():
            members: list[Any] = await self._client.zrange(self._key, self._tidied, self._tidied + BATCH - 1)
            ids = [member.decode() for member in members]
            gone = [job_id for job_id, there in zip(ids, await self._exist(ids), strict=True) if not there]
            await self._drop(gone)
        self._tidied = self._tidied + len(ids) - len(gone) if len(ids) == BATCH else 0
        return len(gone)

    async def _place(self, job_id: str) -> _Place | None:
        """A job that is gone from the index had its place at about the time of its id."""
        if not job_id:
            return None
        with store_errors():
            score = await self._client.zscore(self._key, job_id)
        return _Place(born_ms(job_id) if score is None else int(score), job_id)

    async def _next(self, query: JobQuery, place: _Place | None) -> list[_Place]:
        """The next BATCH places behind `place` in the direction of the query, fewer only at the end.

        Several jobs of one millisecond have one score, so those already seen are read again and left out here.
        """
        forward = bool(query.before)
        low = query.created_after or 0
        high = FOREVER if query.created_before is None else query.created_before
        if place is not None and forward:
            low = max(low, place.at)
        elif place is not None:
            high = min(high, place.at)
        count = BATCH
        while True:
            raw = await self._between(low, high, count, newest_first=not forward)
            fresh = [each for each in raw if place is None or (each > place if forward else each < place)]
            if len(fresh) >= BATCH or len(raw) < count:
                return fresh[:BATCH]
            count += BATCH

    async def _between(self, low: int, high: int, count: int, *, newest_first: bool) -> list[_Place]:
        start, stop = (high, low) if newest_first else (low, high)
        with store_errors():
            raw: list[Any] = await self._client.zrange(
                self._key, start, stop, desc=newest_first, byscore=True, offset=0, num=count, withscores=True
            )
        return [_Place(int(score), member.decode()) for member, score in raw]

    async def _records(self, places: Sequence[_Place]) -> list[Job]:
        """The records of these places; entries without one are dropped from the index."""
        if not places:
            return []
        with store_errors():
            async with self._client.pipeline(transaction=False) as pipe:
                for place in places:
                    pipe.hmget(keys.job(place.job_id), _LISTED)
                rows: list[list[bytes | None]] = await pipe.execute()
            jobs = [_job(row) for row in rows]
            await self._drop([place.job_id for place, job in zip(places, jobs, strict=True) if job is None])
        return [job for job in jobs if job is not None]

    async def _exist(self, ids: Sequence[str]) -> list[Any]:
        async with self._client.pipeline(transaction=False) as pipe:
            for job_id in ids:
                pipe.exists(keys.job(job_id))
            return list(await pipe.execute())

    async def _drop(self, ids: Sequence[str]) -> None:
        if ids:
            await self._client.zrem(self._key, *ids)


def _job(row: Sequence[bytes | None]) -> Job | None:
    fields = {name.encode(): value for name, value in zip(_LISTED, row, strict=True) if value is not None}
    return records.from_hash({**fields, b"prompt_ids": b""}) if b"state" in fields else None


def _page(query: JobQuery, found: list[Job], reached: str, *, has_more: bool) -> JobPage:
    """`reached` is the last job that was looked at, where that is where to go on."""
    jobs = tuple(reversed(found)) if query.before else tuple(found)
    first_id, last_id = (jobs[0].id, jobs[-1].id) if jobs else (None, None)
    if query.before:
        return JobPage(jobs, reached or first_id, last_id, has_more)
    return JobPage(jobs, first_id, reached or last_id, has_more)
