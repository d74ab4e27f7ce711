"""A queue and a blob store whose process dies at a named call of theirs, before it is sent or after its answer.

Knows which calls matter, not who makes them: everything else is passed on as it is.
"""

from collections.abc import Awaitable, Callable, Generator
from dataclasses import replace
from functools import partial
from typing import Any

import redis
import redis.asyncio

from headrace.contract.job import Job, Lease
from headrace.queue.async_redis import AsyncRedisQueue
from headrace.queue.base import AppendReply, ClaimRequest, Outcome, ReapReply, ReapRequest, Timing
from headrace.queue.redis import RedisQueue
from headrace.store.async_payloads import AsyncPayloads
from headrace.store.payloads import Payloads
from tests.chaos.doom import Doom
from tests.chaos.doomed import Doomed

VERBS = frozenset({"accept", "claim", "append", "renew", "retry", "finish", "release", "cancel", "reap"})


def moment(verb: str, arguments: tuple[Any, ...]) -> str:
    """What a call is named by. Taking back what a dead engine held is another thing than a tick of the sweep."""
    first = arguments[0] if arguments else None
    return "bury" if isinstance(first, ReapRequest) and first.worker else verb


def matters(verb: str, arguments: tuple[Any, ...]) -> bool:
    """Whether it would be a death worth dying, by what is about to be said."""
    match verb, arguments:
        case "claim", (ClaimRequest(held=held),):
            return held > 0
        case "append", (writes, *_):
            return any(write.deltas for write in writes)
        case "renew", (_, leases):
            return bool(leases)
        case _:
            return True


def bore_fruit(verb: str, arguments: tuple[Any, ...], reply: Any) -> bool:
    """The same by what was answered."""
    if verb == "claim":
        return bool(reply)
    if isinstance(reply, ReapReply):
        return bool(reply.requeued or reply.expired or reply.dead)
    return matters(verb, arguments)


def part(verb: str, arguments: tuple[Any, ...]) -> tuple[Any, ...] | None:
    """The first part of a call that does many things at once; None for one that does not."""
    match verb, arguments:
        case "append", (writes, *_) if len(writes) > 1:
            return (writes[: len(writes) // 2],)
        case "reap", (ReapRequest(worker="") as request,):
            return (replace(request, limit=1),)
        case _:
            return None


def saying(doom: Doom, verb: str, arguments: tuple[Any, ...]) -> Generator[tuple[Any, ...], Any, Any]:
    """One call as steps: yields arguments to call the verb with, is sent the answers, returns the last one.

    At `append.lost` nothing is sent and all is said to be well, as a store answers that is about to lose its tail.
    """
    named = moment(verb, arguments)
    if matters(verb, arguments):
        doom.at(f"{named}.before")
        if verb == "append" and doom.due("append.lost"):
            doom.note()
            return [AppendReply(Outcome.OK) for _ in arguments[0]]
    first = part(named, arguments) if doom.awaits(f"{named}.middle") else None
    if first is not None:
        # The rest is said again together with it, should this not have been the one: every verb may be repeated.
        reply = yield first
        if bore_fruit(verb, arguments, reply):
            doom.at(f"{named}.middle")
    reply = yield arguments
    if bore_fruit(verb, arguments, reply):
        doom.at(f"{named}.after")
    return reply


class DoomedQueue(Doomed):
    """For threads."""

    def __getattr__(self, name: str) -> Any:
        found = super().__getattr__(name)
        return partial(self._say, name, found) if name in VERBS else found

    def _say(self, verb: str, call: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        steps, reply = saying(self._doom, verb, arguments), None
        while True:
            try:
                said = steps.send(reply)
            except StopIteration as end:
                return end.value
            reply = call(*said, **options)


class DoomedAsyncQueue(Doomed):
    """For an event loop."""

    def __getattr__(self, name: str) -> Any:
        found = super().__getattr__(name)
        return partial(self._say, name, found) if name in VERBS else found

    async def _say(self, verb: str, call: Callable[..., Awaitable[Any]], *arguments: Any, **options: Any) -> Any:
        steps, reply = saying(self._doom, verb, arguments), None
        while True:
            try:
                said = steps.send(reply)
            except StopIteration as end:
                return end.value
            reply = await call(*said, **options)


class DoomedPayloads(Doomed):
    """For threads: dies once something large has its place, and the queue has not heard of it."""

    def shelve_result(self, lease: Lease, packed: bytes) -> str:
        ref: str = self._real.shelve_result(lease, packed)
        if ref:
            self._doom.at("finish.shelved")
        return ref


class DoomedAsyncPayloads(Doomed):
    """The same for an event loop."""

    async def shelve_prompt(self, job: Job) -> Job:
        shelved: Job = await self._real.shelve_prompt(job)
        if shelved.prompt_ref:
            self._doom.at("accept.shelved")
        return shelved


def open_doomed(doom: Doom, client: redis.Redis, timing: Timing, *, payloads: Payloads) -> Any:
    """As a worker opens its queue."""
    return DoomedQueue(RedisQueue(client, timing, payloads=DoomedPayloads(payloads, doom)), doom)  # type: ignore[arg-type]


def open_doomed_async(doom: Doom, client: redis.asyncio.Redis, timing: Timing, *, payloads: AsyncPayloads) -> Any:
    """As a gateway opens its queue."""
    shelves: Any = DoomedAsyncPayloads(payloads, doom)
    return DoomedAsyncQueue(AsyncRedisQueue(client, timing, payloads=shelves), doom)
