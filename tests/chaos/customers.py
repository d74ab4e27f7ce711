"""Customers of a fleet whose gateways die: each orders one job until somebody answers, and follows it to its end.

Knows HTTP and what a patient client does: another gateway, the same key, the last cursor. Judges nothing but whether
it was served; what it saw goes into its receipt.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx2
import orjson

from headrace.contract import events
from headrace.contract.errors import StoreUnavailable
from headrace.contract.events import TERMINAL_TYPES, Delta, Event
from headrace.contract.job import TERMINAL
from tests.chaos.oracle import Receipt
from tests.chaos.orders import Mode, Order

PAUSE_S = 0.05
POLL_S = 0.1
SILENCE_S = 3.0
"""Of a gateway, after which another one is asked. Streams bring a ping more often."""

ENDED = frozenset(state.value.lower() for state in TERMINAL)


class Impatient(Exception):
    """Nobody served this customer for too long."""


@dataclass
class Customers:
    """`urls` says which gateways there are now; `submit_several` takes the orders of several choices, which gateways
    refuse, and answers with the job's id, or raises StoreUnavailable."""

    urls: Callable[[], Sequence[str]]
    submit_several: Callable[[Order], str]
    patience_s: float = 60.0
    _client: httpx2.AsyncClient = field(init=False)

    def __post_init__(self) -> None:
        timeout = httpx2.Timeout(SILENCE_S, connect=1.0)
        limits = httpx2.Limits(max_connections=None, max_keepalive_connections=0)
        self._client = httpx2.AsyncClient(timeout=timeout, limits=limits, verify=False, trust_env=False)

    async def close(self) -> None:
        await self._client.aclose()

    async def serve(self, order: Order) -> Receipt:
        """From the order to the job's end."""
        customer = _Customer(self, order)
        try:
            await customer.run()
        except Impatient as error:
            customer.trouble.append(str(error))
        return customer.receipt()


class _Customer:
    def __init__(self, shop: Customers, order: Order) -> None:
        self._shop = shop
        self._order = order
        self._give_up_at = time.monotonic() + shop.patience_s
        self._asked = order.number  # the next gateway to ask
        self._job_id = ""
        self._cursor = ""
        self._ended = ""
        self._cancelled = False
        self._tokens = 0
        self._seen: list[Delta] = []
        self.trouble: list[str] = []

    async def run(self) -> None:
        self._job_id = await self._submit()
        if self._order.twice and (again := await self._submit()) != self._job_id:
            self.trouble.append(f"the same key gave {self._job_id}, then {again}")
        if self._order.mode is Mode.POLL:
            await self._wait()
        else:
            await self._follow()

    def receipt(self) -> Receipt:
        order = self._order
        return Receipt(
            job_id=self._job_id,
            answers=order.answers,
            prompt_tokens=order.prompt_tokens,
            may_end=order.may_end,
            seen=None if order.mode is Mode.POLL else tuple(self._seen),
            trouble=tuple(self.trouble),
        )

    async def _submit(self) -> str:
        while self._order.body["n"] > 1:
            try:
                return await asyncio.to_thread(self._shop.submit_several, self._order)
            except StoreUnavailable:
                await self._pause(None)
        headers = {"idempotency-key": self._order.key}
        while True:
            reply = await self._ask("POST", "/v1/jobs", json=self._order.body, headers=headers)
            if reply is not None and reply.status_code == 202:
                return str(reply.json()["id"])
            await self._pause(reply)

    async def _wait(self) -> None:
        while True:
            reply = await self._ask("GET", f"/v1/jobs/{self._job_id}")
            if reply is not None and reply.status_code == 200:
                if reply.json()["state"] in ENDED:
                    return
                await asyncio.sleep(POLL_S)
            else:
                await self._pause(reply)

    async def _follow(self) -> None:
        """Every event from the last cursor on, from one gateway after the other."""
        while not self._ended:
            try:
                async for cursor, event in self._stream():
                    self._cursor = cursor
                    self._see(event)
                    if self._wants_to_cancel():
                        await self._cancel()
            except (httpx2.HTTPError, ConnectionError):
                pass
            if not self._ended:
                await self._pause(None)

    async def _stream(self) -> AsyncIterator[tuple[str, Event]]:
        url = f"{self._gateway()}/v1/jobs/{self._job_id}/events"
        headers = {"last-event-id": self._cursor} if self._cursor else {}
        async with self._shop._client.stream("GET", url, headers=headers) as reply:
            if reply.status_code != 200:
                await reply.aread()
                await self._pause(reply)
                return
            cursor = ""
            async for line in reply.aiter_lines():
                if line.startswith("id: "):
                    cursor = line.removeprefix("id: ")
                elif line.startswith("data: ") and cursor:
                    yield cursor, events.from_json(orjson.loads(line.removeprefix("data: ")))
                    cursor = ""

    def _see(self, event: Event) -> None:
        if self._ended:
            self.trouble.append(f"{event.type} behind {self._ended}")
        if isinstance(event, Delta):
            self._seen.append(event)
            self._tokens += len(event.token_ids)
        if event.type in TERMINAL_TYPES:
            self._ended = event.type

    def _wants_to_cancel(self) -> bool:
        order = self._order
        return order.mode is Mode.CANCEL and not self._cancelled and not self._ended and self._tokens >= order.cancel_at

    async def _cancel(self) -> None:
        while True:
            reply = await self._ask("DELETE", f"/v1/jobs/{self._job_id}")
            if reply is not None and reply.status_code == 200:
                self._cancelled = True
                return
            await self._pause(reply)

    async def _ask(self, method: str, path: str, **options: Any) -> httpx2.Response | None:
        """None when nobody answered."""
        try:
            return await self._shop._client.request(method, f"{self._gateway()}{path}", **options)
        except httpx2.HTTPError:
            return None

    def _gateway(self) -> str:
        urls = self._shop.urls()
        self._asked += 1
        return urls[self._asked % len(urls)]

    async def _pause(self, reply: httpx2.Response | None) -> None:
        """Before asking again. What a refusal means that will not pass is trouble."""
        if reply is not None and reply.status_code < 500 and reply.status_code != 429:
            raise Impatient(f"refused with {reply.status_code}: {reply.text[:300]}")
        if time.monotonic() > self._give_up_at:
            raise Impatient(f"not served within {self._shop.patience_s:g} s")
        await asyncio.sleep(PAUSE_S)
