"""A client is waited for so long and no longer, and time between two sends is nobody's fault."""

import asyncio

import pytest

from gateway.errors import ClientGone
from gateway.patience import patience


async def test_a_send_that_hangs_is_given_up() -> None:
    async with asyncio.timeout(10):
        with pytest.raises(ClientGone):
            async with patience(0.05) as watch:
                watch.begin()
                await asyncio.Event().wait()


async def test_one_that_began_just_after_a_look_has_all_its_time_and_no_more() -> None:
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(10):
        with pytest.raises(ClientGone):
            async with patience(0.1) as watch:
                await asyncio.sleep(0.06)
                watch.begin()
                began = loop.time()
                await asyncio.Event().wait()
    assert loop.time() - began >= 0.09


async def test_a_stream_may_be_silent_longer_than_a_send_may_take() -> None:
    async with patience(0.02) as watch:
        for _ in range(3):
            watch.begin()
            await asyncio.sleep(0)
            watch.end()
            await asyncio.sleep(0.05)


async def test_the_timeouts_of_others_stay_theirs() -> None:
    with pytest.raises(TimeoutError):
        async with patience(10):
            async with asyncio.timeout(0.01):
                await asyncio.Event().wait()


async def test_whoever_cancels_is_obeyed() -> None:
    async def send() -> None:
        async with patience(10) as watch:
            watch.begin()
            await asyncio.Event().wait()

    task = asyncio.create_task(send())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
