"""Dead jobs that wait for a person: pages of them over all lanes, each in full, and how they leave for good.

Knows the parked sets and what belongs to a dead job; decides on no redrive.
"""

from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import redis.asyncio

from headrace.contract.dead_letter_query import DeadLetterFilter, Place
from headrace.contract.job import Job, State
from headrace.store import keys, records
from headrace.store.async_payloads import AsyncPayloads
from headrace.store.connection import store_errors

BATCH = 100
MOST_EXAMINED = 1_000
"""Records that one page looks at; a filter that few letters pass takes several pages to find them."""

_FOREVER = 2**53
"""Milliseconds beyond any death; what a sorted set's score can still hold exactly."""

_LISTED = (
    *("id", "tenant", "model", "lane", "revision", "class", "kind", "state", "request", "next_offset", "schema"),
    *("attempt", "retries", "deaths", "deaths_total", "death_offset"),
    *("created_at", "queued_at", "leased_at", "first_token_at", "ended_at", "deadline_at"),
    *("error", "history", "usage", "metadata", "prompt_ref", "redrive_of", "replay_of", "digest_wanted"),
)
"""What a list shows and a filter asks for; a prompt's ids may be megabytes."""

_RETIRE = """
-- KEYS record, journal, dead letters of its lane. ARGV id, id of its redrive, ms that record and journal stay.
if redis.call('HGET', KEYS[1], 'state') ~= 'DEAD' or redis.call('ZREM', KEYS[3], ARGV[1]) == 0 then return 0 end
redis.call('HSET', KEYS[1], 'redriven_as', ARGV[2])
redis.call('PEXPIRE', KEYS[1], ARGV[3])
redis.call('PEXPIRE', KEYS[2], ARGV[4])
return 1
"""
_PURGE = """
-- KEYS record, journal, dead letters of its lane, index of jobs, idempotency key. ARGV id.
if redis.call('HGET', KEYS[1], 'state') ~= 'DEAD' or redis.call('ZREM', KEYS[3], ARGV[1]) == 0 then return 0 end
redis.call('DEL', KEYS[1], KEYS[2])
redis.call('ZREM', KEYS[4], ARGV[1])
if redis.call('HGET', KEYS[5], 'job') == ARGV[1] then redis.call('DEL', KEYS[5]) end
return 1
"""


@dataclass(frozen=True, slots=True)
class DeadLetterPage:
    """Letters in the order of the walk, without their prompt ids. `after` is where to go on: the last one shown or,
    where the search was cut short, the last one looked at; None at the end. `began` as in `Place`."""

    letters: tuple[Job, ...]
    after: Place | None
    began: int | None = None

    def behind(self, letter: Job) -> Place:
        """Where to go on when this was the last letter that something was done with."""
        return replace(Place.of(letter), began=self.began)


@dataclass(frozen=True, slots=True)
class Absent:
    """An id that is not parked; `redriven_as` is the job that took the place of a letter, as long as that is known."""

    job_id: str
    redriven_as: str = ""


class DeadLetters:
    """For one event loop. Every method raises StoreUnavailable."""

    def __init__(
        self,
        client: redis.asyncio.Redis,
        payloads: AsyncPayloads | None = None,
        settle: Callable[[Job], Awaitable[None]] | None = None,
    ) -> None:
        """`settle` is awaited with each letter before it leaves: whoever else keeps something of the job, and could
        bring it back, is told there that it is done."""
        self._client = client
        self._payloads = payloads or AsyncPayloads()
        self._settle = settle or _nobody_else
        self._retire = client.register_script(_RETIRE)
        self._purge = client.register_script(_PURGE)

    async def page(
        self, wanted: DeadLetterFilter, *, limit: int, after: Place | None = None, oldest_first: bool = False
    ) -> DeadLetterPage:
        """The next `limit` letters that pass, behind `after` in the order of the walk. Entries of the sets whose record
        is gone are dropped on the way.

        Oldest first is the order of those who change letters: such a walk, unless it is through named ones, ends with
        what was dead when its first page was asked for.
        """
        began = None
        if oldest_first and not wanted.ids:
            began = await self._now() if after is None or after.began is None else after.began
            wanted = wanted.as_of(began)
        found, place = await self._search(wanted, limit, after, oldest_first)
        return DeadLetterPage(tuple(found), place and replace(place, began=began), began)

    async def _search(
        self, wanted: DeadLetterFilter, limit: int, after: Place | None, oldest_first: bool
    ) -> tuple[list[Job], Place | None]:
        """What a page shows, and the place behind it; None at the end."""
        sets = [keys.dlq(lane) for lane in await self._lanes() if wanted.takes_lane(lane)]
        found: list[Job] = []
        place, examined = after, 0
        while examined < MOST_EXAMINED:
            places = await self._next(sets, wanted, place, oldest_first)
            for each, letter in zip(places, await self._listed(places, sets), strict=True):
                if letter is not None and wanted.takes(letter):
                    if len(found) == limit:
                        return found, place
                    found.append(letter)
                place = each
            examined += len(places)
            if len(places) < BATCH:
                return found, None
        return found, place

    async def find(self, job_id: str) -> Job | None:
        """The whole record of a parked job, its prompt ids included unless they lie in the blob store; else None."""
        with store_errors():
            fields: Any = await self._client.hgetall(keys.job(job_id))
            if fields.get(b"state", b"").decode() != State.DEAD:
                return None
            letter = records.from_hash(fields)
            parked = await self._client.zscore(keys.dlq(letter.lane), job_id)
        return None if parked is None else letter

    async def absent(self, ids: Iterable[str]) -> tuple[Absent, ...]:
        """Those of these ids that are not parked, in their order."""
        ids = tuple(ids)
        parked = {place.job_id for place in await self._named(ids)}
        gone = [job_id for job_id in ids if job_id not in parked]
        with store_errors():
            async with self._client.pipeline(transaction=False) as pipe:
                for job_id in gone:
                    pipe.hget(keys.job(job_id), "redriven_as")
                successors: list[bytes | None] = await pipe.execute()
        return tuple(Absent(job_id, (new or b"").decode()) for job_id, new in zip(gone, successors, strict=True))

    async def retire(self, letter: Job, redriven_as: str, *, record_ms: int, journal_ms: int) -> None:
        """Take a letter out of its set now that another job does its work; record and journal stay so much longer.
        Saying it again changes nothing, nor does saying it of a letter that was purged."""
        await self._settle(letter)
        named = (keys.job(letter.id), keys.journal(letter.id), keys.dlq(letter.lane))
        with store_errors():
            await self._retire(keys=named, args=(letter.id, redriven_as, record_ms, journal_ms))

    async def purge(self, job_id: str) -> bool:
        """Delete a parked job: its prompt in the blob store, record, journal, entries and idempotency key. False when
        it is not parked; a job that lives or was redriven is left alone.

        The prompt goes first: killed then, the letter is still parked, and purging it again does the rest. Raises
        BlobsUnavailable, and nothing is deleted then.
        """
        letter = await self.find(job_id)
        if letter is None:
            return False
        await self._settle(letter)
        await self._payloads.drop_prompt(letter)
        named = (
            keys.job(job_id),
            keys.journal(job_id),
            keys.dlq(letter.lane),
            keys.job_index(letter.tenant),
            keys.idempotency(letter.tenant, letter.idem_key),
        )
        with store_errors():
            return bool(await self._purge(keys=named, args=(job_id,)))

    async def _now(self) -> int:
        """Milliseconds by the clock that deaths are timed with."""
        with store_errors():
            seconds, micros = await self._client.time()
        return int(seconds) * 1000 + int(micros) // 1000

    async def _lanes(self) -> list[str]:
        """Every lane that has a card; cards are never deleted."""
        with store_errors():
            members: Any = await self._client.smembers(keys.CARDS)
        return sorted(member.decode() for member in members)

    async def _next(
        self, sets: Sequence[str], wanted: DeadLetterFilter, place: Place | None, oldest_first: bool
    ) -> list[Place]:
        """The next BATCH places behind `place`, fewer only at the end."""
        if wanted.ids:
            found = await self._named(wanted.ids)
        else:
            found = await self._between(sets, wanted, place, oldest_first)
        found.sort(reverse=not oldest_first)
        return [each for each in found if _behind(each, place, oldest_first)][:BATCH]

    async def _named(self, ids: Sequence[str]) -> list[Place]:
        """The places of those of these jobs that are parked."""
        with store_errors():
            async with self._client.pipeline(transaction=False) as pipe:
                for job_id in ids:
                    pipe.hget(keys.job(job_id), "lane")
                lanes: list[bytes | None] = await pipe.execute()
            named = [(job_id, lane.decode()) for job_id, lane in zip(ids, lanes, strict=True) if lane is not None]
            async with self._client.pipeline(transaction=False) as pipe:
                for job_id, lane in named:
                    pipe.zscore(keys.dlq(lane), job_id)
                scores: list[float | None] = await pipe.execute()
        return [
            Place(int(score), job_id) for (job_id, _), score in zip(named, scores, strict=True) if score is not None
        ]

    async def _between(
        self, sets: Sequence[str], wanted: DeadLetterFilter, place: Place | None, oldest_first: bool
    ) -> list[Place]:
        """At least the next BATCH places of every set, where it has as many.

        Several letters of one millisecond have one score, so those already seen are read again, and left to the caller.
        """
        low, high = wanted.since or 0, _FOREVER if wanted.until is None else wanted.until
        if place is not None and oldest_first:
            low = max(low, place.at)
        elif place is not None:
            high = min(high, place.at)
        start, stop = (low, high) if oldest_first else (high, low)
        count = BATCH
        while True:
            with store_errors():
                async with self._client.pipeline(transaction=False) as pipe:
                    for key in sets:
                        pipe.zrange(
                            key, start, stop, desc=not oldest_first, byscore=True, offset=0, num=count, withscores=True
                        )
                    answers: list[Any] = await pipe.execute()
            read = [[Place(int(score), member.decode()) for member, score in raw] for raw in answers]
            if all(len(one) < count or _behind(one[count - BATCH], place, oldest_first) for one in read):
                return [each for one in read for each in one]
            count += BATCH

    async def _listed(self, places: Sequence[Place], sets: Sequence[str]) -> list[Job | None]:
        if not places:
            return []
        with store_errors():
            async with self._client.pipeline(transaction=False) as pipe:
                for place in places:
                    pipe.hmget(keys.job(place.job_id), _LISTED)
                rows: list[list[bytes | None]] = await pipe.execute()
            letters = [_letter(row) for row in rows]
            gone = [place.job_id for place, letter in zip(places, letters, strict=True) if letter is None]
            if gone:
                async with self._client.pipeline(transaction=False) as pipe:
                    for key in sets:
                        pipe.zrem(key, *gone)
                    await pipe.execute()
        return letters


async def _nobody_else(_: Job) -> None:
    pass


def _behind(each: Place, place: Place | None, oldest_first: bool) -> bool:
    return place is None or (each > place if oldest_first else each < place)


def _letter(row: Sequence[bytes | None]) -> Job | None:
    fields = {name.encode(): value for name, value in zip(_LISTED, row, strict=True) if value is not None}
    return records.from_hash({**fields, b"prompt_ids": b""}) if b"state" in fields else None
