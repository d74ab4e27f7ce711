"""The clients of a fleet in trouble: they submit, follow, look and ask for its health, and write down what they saw.

They behave as clients should: each submit has an idempotency key and is repeated after a 503; a stream that was cut is
taken up again at its cursor; a job that is gone is submitted again. Knows HTTP, not what is right.
"""

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from random import Random
from typing import Any

import httpx2
import orjson

from tests.chaos.faults.fleet import MODEL, Times

FLOWING = 8
"""Tokens of each long stream before the trouble begins."""

GONE = frozenset({"job_not_found", "journal_expired"})
_TERMINAL = frozenset({"completed", "failed", "cancelled", "expired"})
_AGAIN_S = 0.1
_MOST_TRIES_S = 60.0


@dataclass(slots=True)
class Asked:
    """One job and all that its client heard of it. Times are monotonic seconds.

    `over` is the type of its last event, or the code with which its client was told that it is not there.
    """

    key: str
    prompt: tuple[int, ...]
    seed: int
    max_tokens: int
    long: bool
    job_id: str = ""
    accepted_at: float = 0.0
    events: list[tuple[float, dict[str, Any]]] = field(default_factory=list)
    taken_up: int = 0
    over: str = ""
    faults: list[str] = field(default_factory=list)

    @property
    def accepted(self) -> bool:
        return bool(self.job_id)

    @property
    def told(self) -> int:
        return sum(len(event["token_ids"]) for _, event in self.events if event["type"] == "delta")


@dataclass(frozen=True, slots=True)
class Answer:
    """One reply of the gateway, or none: `status` 0 says that there was none in time."""

    what: str
    at: float
    seconds: float
    status: int
    code: str = ""
    retry_after: str = ""


class Load:
    """Runs on a loop of its own, in a thread. Use as a context manager; `dice` decides on every request."""

    def __init__(self, url: str, times: Times, dice: Random, name: str) -> None:
        self.asked: list[Asked] = []
        self.answers: list[Answer] = []
        self._url = url
        self._times = times
        self._dice = dice
        self._name = name
        self._limit_s = 3 * times.timeout_s + 5.0
        self._submitting = True
        self._tasks: set[asyncio.Task[None]] = set()
        self._alive = 0  # clients that still wait for something
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="load", daemon=True)

    def __enter__(self) -> "Load":
        self._thread.start()
        self._call(self._begin())
        return self

    def __exit__(self, *_: object) -> None:
        self._call(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10.0)
        self._loop.close()

    # -- from the thread that makes the trouble

    def flows(self) -> bool:
        """Whether every long stream has begun."""
        return all(asked.told >= FLOWING for asked in self.asked if asked.long)

    def stop_submitting(self) -> None:
        self._submitting = False

    def over(self) -> bool:
        """Whether every client has what it is going to get."""
        return not self._submitting and not self._alive

    def _call(self, work: Awaitable[None]) -> None:
        async def run() -> None:
            await work

        asyncio.run_coroutine_threadsafe(run(), self._loop).result(30.0)

    # -- on the loop

    async def _begin(self) -> None:
        limits = httpx2.Limits(max_connections=None, max_keepalive_connections=20)
        # No stream is silent for long: it is pinged.
        timeout = httpx2.Timeout(self._limit_s, read=self._limit_s)
        self._http = httpx2.AsyncClient(base_url=self._url, timeout=timeout, limits=limits)
        for number in range(self._times.streams):
            self._begin_life(self._new(number, long=True))
        self._start(self._trickle())
        for path in ("/health/ready", "/health/live"):
            self._start(self._watch(path, lambda path=path: path))  # type: ignore[misc]
        self._start(self._watch("look", self._some_job))

    async def _end(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._http.aclose()

    def _start(self, work: Any) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _new(self, number: int, *, long: bool) -> Asked:
        dice = self._dice
        prompt = tuple(dice.randrange(256) for _ in range(dice.randrange(4, 40)))
        tokens = self._times.tokens if long else dice.randrange(1, 64)
        asked = Asked(f"{self._name}-{number}", prompt, dice.randrange(1 << 31), tokens, long)
        self.asked.append(asked)
        return asked

    async def _trickle(self) -> None:
        """Short jobs, all the while."""
        number = self._times.streams
        while self._submitting:
            self._begin_life(self._new(number, long=False))
            number += 1
            await asyncio.sleep(self._times.trouble_s / 25 * (0.5 + self._dice.random()))

    def _begin_life(self, asked: Asked) -> None:
        self._alive += 1
        self._start(self._live(asked))

    async def _live(self, asked: Asked) -> None:
        try:
            await self._submit(asked)
            if asked.accepted:
                await self._follow(asked)
            if asked.over in GONE:
                again = Asked(asked.key, asked.prompt, asked.seed, asked.max_tokens, long=False)
                self.asked.append(again)
                self._begin_life(again)
        except Exception as error:  # noqa: BLE001 - whatever it is, the judge must hear of it
            asked.faults.append(f"its client failed: {error!r}")
            asked.over = asked.over or "client_failed"
        finally:
            self._alive -= 1

    async def _submit(self, asked: Asked) -> None:
        body = {
            "model": MODEL,
            "prompt": list(asked.prompt),
            "max_tokens": asked.max_tokens,
            "seed": asked.seed,
            "class": "interactive",
        }
        give_up_at = time.monotonic() + _MOST_TRIES_S
        while True:
            answer, reply = await self._ask("submit", "POST", "/v1/jobs", json=body, key=asked.key)
            if answer.status in (200, 202):
                asked.job_id, asked.accepted_at = str(reply["id"]), time.monotonic()
                return
            if answer.status not in (0, 503):
                asked.faults.append(f"submit answered {answer.status} {answer.code}")
                asked.over = "refused"
                return
            if time.monotonic() > give_up_at:
                asked.over = "never_accepted"
                return
            await asyncio.sleep(_AGAIN_S)

    async def _follow(self, asked: Asked) -> None:
        cursor = ""
        while not asked.over:
            headers = {"last-event-id": cursor} if cursor else {}
            began = time.monotonic()
            try:
                async with self._http.stream("GET", f"/v1/jobs/{asked.job_id}/events", headers=headers) as reply:
                    if reply.status_code == 200:
                        cursor = await self._read(asked, reply, cursor)
                    else:
                        body = orjson.loads(await reply.aread())
                        self._note("follow", began, reply, body)
                        if reply.status_code in (404, 410):
                            asked.over = body["error"]["code"]
            except httpx2.TimeoutException:
                asked.faults.append(f"its stream was silent for {self._limit_s:g} s")
            except httpx2.HTTPError as error:
                asked.faults.append(f"its stream broke: {error!r}")
            if not asked.over:
                asked.taken_up += 1
                await asyncio.sleep(_AGAIN_S)

    async def _read(self, asked: Asked, reply: httpx2.Response, cursor: str) -> str:
        """To the end of the stream; the cursor behind its last event."""
        buffer = b""
        async for chunk in reply.aiter_raw():
            *blocks, buffer = (buffer + chunk).split(b"\n\n")
            for block in blocks:
                lines = [line for line in block.split(b"\n") if not line.startswith(b":")]
                fields = dict(line.split(b": ", 1) for line in lines)
                event = orjson.loads(fields[b"data"])
                if fields.get(b"event") == b"error":
                    if event["error"]["code"] in GONE:
                        asked.over = event["error"]["code"]
                    continue
                cursor = fields[b"id"].decode()
                asked.events.append((time.monotonic(), event))
                if event["type"] in _TERMINAL:
                    asked.over = event["type"]
        return cursor

    async def _watch(self, what: str, path: Callable[[], str]) -> None:
        while True:
            if url := path():
                await self._ask(what, "GET", url)
            await asyncio.sleep(self._times.trouble_s / 20)

    def _some_job(self) -> str:
        accepted = [asked.job_id for asked in self.asked if asked.accepted]
        return f"/v1/jobs/{self._dice.choice(accepted)}" if accepted else ""

    async def _ask(
        self, what: str, method: str, path: str, *, json: Any = None, key: str = ""
    ) -> tuple[Answer, dict[str, Any]]:
        headers = {"idempotency-key": key} if key else {}
        began = time.monotonic()
        try:
            reply = await self._http.request(method, path, json=json, headers=headers)
        except httpx2.HTTPError as error:
            answer = Answer(what, began, time.monotonic() - began, 0, repr(error))
            self.answers.append(answer)
            return answer, {}
        body = orjson.loads(reply.content)
        return self._note(what, began, reply, body), body

    def _note(self, what: str, began: float, reply: httpx2.Response, body: dict[str, Any]) -> Answer:
        code = body.get("error", {}) or {}
        answer = Answer(
            what,
            began,
            time.monotonic() - began,
            reply.status_code,
            code.get("code", "") if reply.status_code >= 400 else "",
            reply.headers.get("retry-after", ""),
        )
        self.answers.append(answer)
        return answer
