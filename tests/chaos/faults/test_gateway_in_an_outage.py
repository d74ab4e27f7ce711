"""What clients of a gateway are told while its Redis is stopped: the truth, in time; and streams stay open."""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from random import Random
from typing import Any

import httpx2
import orjson
import websockets

from headrace.contract.generation import Sampling
from tests.chaos.faults.fleet import MODEL, FaultFleet
from workers.inference.fake_engine import token_at
from workers.inference.messages import AddRequest

TOKENS = 160
PROMPT = [1, 2, 3]
LIMIT_S = 30.0


@dataclass
class Heard:
    """What one reader got through one connection."""

    events: list[dict[str, Any]] = field(default_factory=list)
    pings: int = 0
    over: bool = False

    @property
    def token_ids(self) -> list[int]:
        return [token for event in self.events for token in event.get("token_ids", [])]

    def check(self, truth: list[int]) -> None:
        """Every token once and in order, and one end."""
        assert self.token_ids == truth
        offsets = [(event["offset"], len(event["token_ids"])) for event in self.events if event["type"] == "delta"]
        assert [offset for offset, _ in offsets] == [sum(n for _, n in offsets[:at]) for at in range(len(offsets))]
        assert [event["type"] for event in self.events].count("completed") == 1
        assert self.events[-1]["type"] == "completed"


def body(seed: int) -> dict[str, object]:
    return {"model": MODEL, "prompt": PROMPT, "max_tokens": TOKENS, "seed": seed}


def truth(seed: int) -> list[int]:
    request = AddRequest("", tuple(PROMPT), Sampling(seed=seed), 0, TOKENS)
    return [token_at(request, offset) for offset in range(TOKENS)]


async def read_stream(http: httpx2.AsyncClient, job_id: str, heard: Heard) -> None:
    async with http.stream("GET", f"/v1/jobs/{job_id}/events") as reply:
        assert reply.status_code == 200
        buffer = b""
        async for chunk in reply.aiter_raw():
            heard.pings += chunk.count(b": ping")
            *blocks, buffer = (buffer + chunk).split(b"\n\n")
            for block in blocks:
                heard.events += [orjson.loads(line[6:]) for line in block.split(b"\n") if line.startswith(b"data: ")]
    heard.over = True


async def read_socket(socket: websockets.ClientConnection, heard: Heard) -> None:
    async for said in socket:
        message = orjson.loads(said)
        if message["type"] == "pong":
            heard.pings += 1
        else:
            heard.events.append(message)
    heard.over = True


@asynccontextmanager
async def client(fleet: FaultFleet) -> AsyncIterator[httpx2.AsyncClient]:
    async with httpx2.AsyncClient(base_url=fleet.url, timeout=LIMIT_S) as http:
        yield http


@contextmanager
def stopped(fleet: FaultFleet) -> Iterator[None]:
    os.kill(fleet.server.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(fleet.server.pid, signal.SIGCONT)


async def until(condition: Callable[[], bool], what: str) -> None:
    give_up_at = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < give_up_at, f"waited {LIMIT_S} s for {what}"
        await asyncio.sleep(0.02)


async def is_refused(http: httpx2.AsyncClient, fleet: FaultFleet, method: str, path: str, **more: Any) -> None:
    """With 503 and when to come back, after one timeout and not after several."""
    began = time.monotonic()
    reply = await http.request(method, path, **more)
    seconds = time.monotonic() - began
    assert (reply.status_code, reply.json()["error"]["code"]) == (503, "store_unavailable"), path
    assert int(reply.headers["retry-after"]) >= 1
    assert seconds < 2 * fleet.times.timeout_s + fleet.times.slack_s / 4, path


async def test_streams_outlive_a_stop_and_everybody_else_is_told(faulty_fleet: FaultFleet) -> None:
    fleet, seed = faulty_fleet, Random().randrange(1 << 31)
    async with client(fleet) as http:
        job_id = (await http.post("/v1/jobs", json=body(seed))).json()["id"]
        stream, spoken = Heard(), Heard()
        address = f"{fleet.url.replace('http', 'ws')}/v1/jobs/{job_id}/ws"
        async with websockets.connect(address) as socket, asyncio.TaskGroup() as readers:
            readers.create_task(read_stream(http, job_id, stream))
            readers.create_task(read_socket(socket, spoken))
            await until(lambda: min(len(stream.token_ids), len(spoken.token_ids)) >= 8, "both to flow")
            with stopped(fleet):
                pings, pongs = stream.pings, spoken.pings
                await asyncio.gather(
                    is_refused(http, fleet, "POST", "/v1/jobs", json=body(seed + 1)),
                    is_refused(http, fleet, "GET", f"/v1/jobs/{job_id}"),
                    is_refused(http, fleet, "GET", "/health/ready"),
                )
                assert (await http.get("/health/live")).status_code == 200
                await socket.send('{"type":"ping"}')
                await until(lambda: stream.pings > pings and spoken.pings > pongs, "signs of life")
                assert not stream.over
                assert not spoken.over
            began = time.monotonic()
            while (await http.get("/health/ready")).status_code != 200:
                assert time.monotonic() < began + 8.0, "not ready again"
                await asyncio.sleep(0.05)
            await until(lambda: stream.over and spoken.over, "both to end")
        stream.check(truth(seed))
        spoken.check(truth(seed))
        assert (await http.get(f"/v1/jobs/{job_id}")).json()["state"] == "succeeded"
        # Redis has heard the submission that was refused, once it went on: nobody asked for that job again.
        while (await http.get("/v1/jobs", params={"state": "active"})).json()["data"]:
            assert time.monotonic() < began + LIMIT_S, "a job that nobody waits for is left"
            await asyncio.sleep(0.05)
