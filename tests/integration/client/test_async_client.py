"""The async client against a real gateway: many streams at once, cut connections, cancelled tasks."""

import asyncio
import time
from collections.abc import Callable

import pytest

from headrace import AsyncClient, Client
from headrace.client import Patience
from headrace.contract.events import Delta
from tests.chaos.faults.conditions import Conditions
from tests.chaos.faults.proxy import proxying
from tests.e2e.fleet import Fleet

QUICK = Patience(first_delay_s=0.01, longest_delay_s=0.1)


async def until(condition: Callable[[], bool], what: str, limit_s: float = 20.0) -> None:
    give_up_at = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < give_up_at, what
        await asyncio.sleep(0.01)


async def test_fifty_streams_over_connections_that_are_cut_give_the_results(fake_fleet: Fleet) -> None:
    with proxying(fake_fleet.url) as proxy:
        proxy.set(Conditions(cut_after=1500))
        async with AsyncClient(f"http://{proxy.address}", patience=QUICK) as client:

            async def one(number: int) -> tuple[str, str, int]:
                job = await client.submit(model="fake", prompt=f"{number}", max_tokens=40, seed=number)
                text = "".join([piece async for piece in job.text_stream()])
                result = await job.wait(timeout=60)
                return text, result.text, result.usage.completion_tokens

            answers = await asyncio.gather(*(one(number) for number in range(50)))
    assert all(streamed == result and tokens == 40 for streamed, result, tokens in answers)
    assert len({text for text, _, _ in answers}) == 50
    assert proxy.cuts >= 50


async def test_a_cancelled_task_leaves_no_connection_and_the_job_goes_on(fake_fleet: Fleet) -> None:
    with proxying(fake_fleet.url) as proxy:
        async with AsyncClient(fake_fleet.url) as direct, AsyncClient(f"http://{proxy.address}") as client:
            job = await direct.submit(model="fake", prompt="go on", max_tokens=150, seed=1)
            begun = asyncio.Event()

            async def read() -> None:
                async for _ in client.job(job.id).stream():
                    begun.set()

            task = asyncio.create_task(read())
            await asyncio.wait_for(begun.wait(), 20)
            assert proxy.open == 1
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await until(lambda: proxy.open == 0, "the stream's connection to be closed")
            assert (await job.wait(timeout=60)).usage.completion_tokens == 150


async def test_a_stream_that_is_left_early_is_closed(fake_fleet: Fleet) -> None:
    with proxying(fake_fleet.url) as proxy:
        async with AsyncClient(fake_fleet.url) as direct, AsyncClient(f"http://{proxy.address}") as client:
            job = await direct.submit(model="fake", prompt="go on", max_tokens=500, seed=2)
            async for event in client.job(job.id).stream():
                if isinstance(event, Delta):
                    break
            await until(lambda: proxy.open == 0, "the stream's connection to be closed")
            assert (await job.cancel()).state == "CANCELLED"


async def test_jobs_end_in_their_own_order(fake_fleet: Fleet) -> None:
    async with AsyncClient(fake_fleet.url) as client:
        long, short = [await client.submit(model="fake", prompt="p", max_tokens=n, seed=3) for n in (1000, 4)]
        ended = []
        async for handle in client.as_completed([long, short], timeout=60):
            ended.append(handle.id)
            if handle is short:
                await long.cancel()
        assert ended == [short.id, long.id]


async def test_both_clients_list_the_same_jobs(fake_fleet: Fleet) -> None:
    async with AsyncClient(fake_fleet.url) as client:
        mark = {"listing": str(time.monotonic_ns())}
        sent = [await client.submit(model="fake", prompt="p", max_tokens=1, metadata=mark) for _ in range(3)]
        for job in sent:
            await job.wait(timeout=60)
        found = [view.id async for view in client.jobs(state="ended", model="fake", metadata=mark)]
        running = [view.id async for view in client.jobs(state="active", metadata=mark)]
    with Client(fake_fleet.url) as blocking:
        assert [view.id for view in blocking.jobs(metadata=mark)] == found
    assert (found, running) == ([job.id for job in reversed(sent)], [])


async def test_a_submit_that_waits_brings_the_answer(fake_fleet: Fleet) -> None:
    async with AsyncClient(fake_fleet.url) as client:
        job = await client.submit(model="fake", prompt="p", max_tokens=5, wait=20)
    # The client is closed: nothing more can be asked.
    assert (await job.wait()).usage.completion_tokens == 5
