"""A gateway is killed under those who use it: whoever goes on at another one misses nothing and sees nothing twice."""

import asyncio
import json
import random
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress

import httpx2
import pytest

from headrace import AsyncClient
from headrace.client import AsyncJobHandle
from headrace.client.sse import Parser
from headrace.contract.events import Delta, Event, from_json
from headrace.contract.job import Job
from tests.integration.gateway.doomed_gateway import DoomedGateway, doomed, killed_by_its_answer
from tests.integration.gateway.scripted_worker import MODEL, ScriptedWorker
from tests.integration.gateway.serving import Gateway
from tests.redis_server import RedisServer
from tests.unit.gateway.byte_model import ids_of

BY_SDK, BY_HAND, WAITING = 32, 8, 8
LIMIT_S = 60.0
LETTERS = "abcdefghijklmnopqrstuvwxyzäß€"


class Reader:
    """One reader's job: what is said before the kill and after it, in pieces, and what the reader saw."""

    def __init__(self, number: int) -> None:
        dice = random.Random(number)
        pieces = ["".join(dice.choices(LETTERS, k=dice.randint(1, 9))) for _ in range(12)]
        cut = dice.randint(0, 11)
        self.before, self.after = pieces[:cut], pieces[cut:]
        self.prompt = f"reader {number}"
        self.events: list[Event] = []

    def saw(self, pieces: Sequence[str]) -> bool:
        """All of them, once and in order, ids and text, and each event once."""
        wanted = ids_of("".join(pieces))
        deltas = [event for event in self.events if isinstance(event, Delta)]
        ids = tuple(token for delta in deltas for token in delta.token_ids)
        if len(ids) < len(wanted):
            return False
        assert [event.seq for event in self.events] == list(range(1, len(self.events) + 1))
        return ids == wanted and "".join(delta.text for delta in deltas) == "".join(pieces)


@pytest.fixture
async def doomed_gateway(redis_server: RedisServer, worker: ScriptedWorker) -> AsyncIterator[DoomedGateway]:
    async with doomed(redis_server.url) as gateway:
        yield gateway


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(LIMIT_S):
        while not condition():
            await asyncio.sleep(0.02)


async def by_sdk(job: AsyncJobHandle, reader: Reader) -> None:
    async for event in job.stream():
        reader.events.append(event)


async def by_hand(urls: Sequence[str], job_id: str, reader: Reader) -> None:
    """What the docs tell those who have no SDK: after a lost connection, the last id to another gateway."""
    cursor = ""
    async with httpx2.AsyncClient(timeout=LIMIT_S) as http:
        for url in urls:
            parser, headers = Parser(), {"Last-Event-ID": cursor} if cursor else {}
            with suppress(httpx2.TransportError):
                async with http.stream("GET", f"{url}/v1/jobs/{job_id}/events", headers=headers) as reply:
                    async for chunk in reply.aiter_raw():
                        for message in parser.feed(chunk):
                            cursor = message.id
                            reader.events.append(from_json(json.loads(message.data)))


async def test_streams_go_on_at_another_gateway(
    gateway: Gateway, doomed_gateway: DoomedGateway, worker: ScriptedWorker
) -> None:
    """Thirty-two by the SDK alone and eight by hand, each at an offset of its own when the gateway is killed."""
    urls = [doomed_gateway.url, gateway.url]
    readers = [Reader(number) for number in range(BY_SDK + BY_HAND)]
    async with AsyncClient(urls) as client:
        handles = [await client.submit(model=MODEL, prompt=r.prompt, max_tokens=500) for r in readers]
        jobs = {job.id: job for job in (worker.claim() for _ in readers)}
        following = [
            asyncio.create_task(by_sdk(handle, reader) if number < BY_SDK else by_hand(urls, handle.id, reader))
            for number, (handle, reader) in enumerate(zip(handles, readers, strict=True))
        ]
        for handle, reader in zip(handles, readers, strict=True):
            for piece in reader.before:
                worker.say(jobs[handle.id], piece)
        await until(lambda: all(reader.saw(reader.before) and len(reader.events) > 1 for reader in readers))
        doomed_gateway.kill()
        for handle, reader in zip(handles, readers, strict=True):
            worker.carry_on(jobs[handle.id], *reader.after)
        async with asyncio.timeout(LIMIT_S):
            await asyncio.gather(*following)
        assert client.url == gateway.url
    for reader in readers:
        assert reader.saw([*reader.before, *reader.after])
        assert reader.events[-1].type == "completed"
    assert len({len(reader.before) for reader in readers}) > 8


async def test_who_waits_for_an_answer_gets_it_from_another_gateway(
    gateway: Gateway, doomed_gateway: DoomedGateway, worker: ScriptedWorker
) -> None:
    """Half of them hold on to their submit, the others ask again and again."""
    async with AsyncClient([doomed_gateway.url, gateway.url]) as client, asyncio.timeout(LIMIT_S):

        async def wait(number: int) -> str:
            held = 20.0 if number % 2 else None
            job = await client.submit(model=MODEL, prompt=f"waiter {number}", max_tokens=9, wait=held)
            return (await job.wait(timeout=LIMIT_S)).text

        waiting = [asyncio.create_task(wait(number)) for number in range(WAITING)]
        jobs: list[Job] = []
        while len(jobs) < WAITING:
            await until(lambda: bool(worker.client.zcard("hr:jobs:default") > len(jobs)))
            jobs.append(worker.claim())
        await until(lambda: sum(worker.listeners(job.id) for job in jobs) >= WAITING // 2)
        doomed_gateway.kill()
        for job in jobs:
            worker.carry_on(job, "done")
        assert await asyncio.gather(*waiting) == ["done"] * WAITING
        assert len([view async for view in client.jobs()]) == WAITING, "a submit that was said again made another job"


async def test_a_chat_that_was_lost_is_told_again_from_its_beginning(
    gateway: Gateway, doomed_gateway: DoomedGateway, worker: ScriptedWorker
) -> None:
    """OpenAI's streams have no cursor: they break, and the same request with the same key finds the same job."""
    body = {"model": MODEL, "messages": [{"role": "user", "content": "hi"}], "stream": True, "max_tokens": 20}
    heard: list[str] = []

    async def chat(url: str) -> None:
        async with (
            httpx2.AsyncClient(timeout=LIMIT_S, headers={"Idempotency-Key": "once"}) as http,
            http.stream("POST", f"{url}/v1/chat/completions", json=body) as reply,
        ):
            async for line in reply.aiter_lines():
                heard.extend([line.removeprefix("data: ")] if line.startswith("data: ") else [])

    lost = asyncio.create_task(chat(doomed_gateway.url))
    await until(lambda: bool(worker.client.zcard("hr:jobs:default")))
    job = worker.claim()
    worker.say(job, "half")
    await until(lambda: any("half" in each for each in heard))
    doomed_gateway.kill()
    with pytest.raises(httpx2.TransportError):
        await lost
    heard.clear()
    worker.carry_on(job, " and whole")
    await chat(gateway.url)
    assert heard.pop() == "[DONE]"
    assert "".join(json.loads(each)["choices"][0]["delta"].get("content", "") for each in heard) == "half and whole"
    assert worker.client.zcard("hr:jobs:default") == 1


async def test_a_202_that_was_lost_with_its_gateway_is_the_same_job(
    gateway: Gateway, doomed_gateway: DoomedGateway
) -> None:
    async with killed_by_its_answer(doomed_gateway) as wire, AsyncClient([wire, gateway.url]) as client:
        job = await client.submit(model=MODEL, prompt="once", max_tokens=5)
        assert [view.id async for view in client.jobs()] == [job.id]
    assert doomed_gateway.process.returncode == -9
