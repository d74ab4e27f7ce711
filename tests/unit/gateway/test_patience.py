"""A client is waited for so long and no longer, and time between two sends is nobody's fault."""

import asyncio

import pytest

from gateway.errors import ClientGone
from gateway.patience import patience


async def send(limit_s: float, *, idle_s: float = 0.0, takes_s: float | None = None) -> float:
    """One send, after so long without any; how long it took. Without `takes_s` it hangs."""
    loop = asyncio.get_running_loop()
    async with patience(limit_s) as watch:
        await _pass(idle_s)
        watch.begin()
        began = loop.time()
        try:
            await _pass(takes_s)
        finally:
            took = loop.time() - began
        watch.end()
        await _pass(idle_s)
    return took


async def _pass(seconds: float | None) -> None:
    await asyncio.wait([asyncio.get_running_loop().create_future()], timeout=seconds)


async def test_a_send_that_hangs_is_given_up() -> None:
    async with asyncio.timeout(10):
        with pytest.raises(ClientGone):
            await send(0.05)


async def test_one_that_began_just_after_a_look_has_all_its_time_and_no_more() -> None:
    assert await send(0.1, idle_s=0.06, takes_s=0.07) >= 0.06
    with pytest.raises(ClientGone):
        await send(0.1, idle_s=0.06, takes_s=10)


async def test_a_stream_may_be_silent_longer_than_a_send_may_take() -> None:
    await send(0.02, idle_s=0.05, takes_s=0)


async def test_the_timeouts_of_others_stay_theirs() -> None:
    async def impatient() -> None:
        async with asyncio.timeout(0.01):
            await send(10)

    with pytest.raises(TimeoutError):
        await impatient()


async def test_whoever_cancels_is_obeyed() -> None:
    task = asyncio.create_task(send(10))
    await _pass(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
