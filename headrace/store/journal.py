"""Reading what was journaled: events after a cursor, ids of each choice, the result. Writes nothing, knows no text."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import redis
import redis.asyncio

from headrace.contract import events
from headrace.contract.errors import JobNotFound, JournalExpired
from headrace.contract.events import Delta, Event
from headrace.contract.generation import Choice, PromptLogprobs, TokenLogprobs, unpack_ids
from headrace.contract.job import TERMINAL
from headrace.contract.logprobs import unpack_logprobs
from headrace.store import keys, records
from headrace.store.async_payloads import AsyncPayloads
from headrace.store.connection import store_errors
from headrace.store.payloads import INLINE, Payloads, is_blob

T = TypeVar("T")

PAGE = 500
"""Entries read at once."""


@dataclass(frozen=True, slots=True)
class Journaled:
    """What one choice has so far; a `finish_reason` says that nothing more will come."""

    token_ids: tuple[int, ...] = ()
    finish_reason: str | None = None
    logprobs: tuple[TokenLogprobs, ...] = ()
    prompt_logprobs: PromptLogprobs = ()


@dataclass(frozen=True, slots=True)
class _Query(Generic[T]):
    """Commands for one round trip, and how to read their answers."""

    commands: tuple[tuple[str | int, ...], ...]
    parse: Callable[[Sequence[Any]], T]


class Journal:
    """Blocking reader, for workers. Raises StoreUnavailable when Redis cannot be reached.

    `payloads` is where large results lie.
    """

    def __init__(self, client: redis.Redis, payloads: Payloads = INLINE) -> None:
        self._client = client
        self._payloads = payloads

    def read(self, job_id: str, after_seq: int = 0, limit: int = PAGE) -> list[Event]:
        """Events with a seq above `after_seq`, oldest first, at most `limit`; [] when there is nothing new.

        Raises JournalExpired when the job is known and its journal is past its retention, else JobNotFound.
        """
        return self._ask(_events_after(job_id, after_seq, limit))

    def ids(self, job_id: str, n: int = 1) -> tuple[Journaled, ...]:
        """What each of the `n` choices has so far. Raises like `read`."""
        found: list[Event] = []
        while page := self.read(job_id, found[-1].seq if found else 0):
            found += page
        return join(found, n)

    def result(self, job_id: str) -> tuple[Choice, ...] | None:
        """The choices of a job that succeeded, as long as its result is kept; else None.

        Raises BlobNotFound or BlobDamaged for a result that should be in the blob store and is not, or not whole.
        """
        packed, ref = self._ask(_result(job_id))
        if is_blob(ref):
            packed = self._payloads.fetch_result(job_id, ref)
        return None if packed is None else records.unpack_result(packed)

    def _ask(self, query: _Query[T]) -> T:
        with store_errors(), self._client.pipeline(transaction=False) as pipe:
            for command in query.commands:
                pipe.execute_command(*command)  # type: ignore[no-untyped-call]
            return query.parse(pipe.execute())


class AsyncJournal:
    """The same, awaited, for the gateway."""

    def __init__(self, client: redis.asyncio.Redis, payloads: AsyncPayloads | None = None) -> None:
        self._client = client
        self._payloads = payloads or AsyncPayloads()

    async def read(self, job_id: str, after_seq: int = 0, limit: int = PAGE) -> list[Event]:
        return await self._ask(_events_after(job_id, after_seq, limit))

    async def ids(self, job_id: str, n: int = 1) -> tuple[Journaled, ...]:
        found: list[Event] = []
        while page := await self.read(job_id, found[-1].seq if found else 0):
            found += page
        return join(found, n)

    async def result(self, job_id: str) -> tuple[Choice, ...] | None:
        packed, ref = await self._ask(_result(job_id))
        if is_blob(ref):
            packed = await self._payloads.fetch_result(job_id, ref)
        return None if packed is None else records.unpack_result(packed)

    async def _ask(self, query: _Query[T]) -> T:
        with store_errors():
            async with self._client.pipeline(transaction=False) as pipe:
                for command in query.commands:
                    pipe.execute_command(*command)
                return query.parse(await pipe.execute())


def join(found: Sequence[Event], n: int = 1) -> tuple[Journaled, ...]:
    """The deltas of a journal from its beginning, put together for each choice."""
    return tuple(
        _join([event for event in found if isinstance(event, Delta) and event.choice == choice]) for choice in range(n)
    )


def _join(deltas: Sequence[Delta]) -> Journaled:
    return Journaled(
        token_ids=tuple(token_id for delta in deltas for token_id in delta.token_ids),
        finish_reason=deltas[-1].finish_reason if deltas else None,
        logprobs=tuple(entry for delta in deltas for entry in delta.logprobs),
        prompt_logprobs=deltas[0].prompt_logprobs if deltas else (),
    )


def parse_entry(entry_id: bytes, fields: dict[bytes, bytes]) -> Event:
    """One stream entry as an event; a delta's `text` is empty, since text is derived from ids."""
    seq = int(entry_id.partition(b"-")[0])
    event = fields[b"event"]
    if event.startswith(b"{"):
        return events.from_json({"seq": seq, **json.loads(event)})
    choice, offset, *finish = event.decode().split(" ")
    logprobs, prompt_logprobs, _ = unpack_logprobs(fields.get(b"logprobs", b""))
    return Delta(
        seq=seq,
        choice=int(choice),
        offset=int(offset),
        token_ids=unpack_ids(fields[b"ids"]),
        finish_reason=finish[0] if finish else None,
        logprobs=logprobs,
        prompt_logprobs=prompt_logprobs,
    )


def _events_after(job_id: str, after_seq: int, limit: int) -> _Query[list[Event]]:
    stream, record = keys.journal(job_id), keys.job(job_id)

    def parse(answers: Sequence[Any]) -> list[Event]:
        entries, exists, state = answers
        if not exists and state is None:
            raise JobNotFound(f"There is no job {job_id}.", next_step="Check the id; results are kept for a day.")
        if not exists and state.decode() in TERMINAL:
            raise JournalExpired(f"The events of job {job_id} are no longer kept.", next_step="Read its result.")
        return [parse_entry(entry_id, fields) for entry_id, fields in map(_entry, entries)]

    commands = (
        ("XRANGE", stream, f"{after_seq + 1}-0", "+", "COUNT", limit),
        ("EXISTS", stream),
        ("HGET", record, "state"),
    )
    return _Query(commands, parse)


def _entry(raw: Any) -> tuple[bytes, dict[bytes, bytes]]:
    entry_id, fields = raw
    return entry_id, fields if isinstance(fields, dict) else dict(zip(fields[::2], fields[1::2], strict=True))


def _result(job_id: str) -> _Query[tuple[bytes | None, str]]:
    """What Redis has of a result, and where the record says that it lies."""

    def parse(answers: Sequence[Any]) -> tuple[bytes | None, str]:
        packed, ref = answers
        return packed, "" if ref is None else ref.decode()

    return _Query((("GET", keys.result(job_id)), ("HGET", keys.job(job_id), "result_ref")), parse)
