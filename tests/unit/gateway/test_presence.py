import asyncio

import pytest
from starlette.types import Message

from gateway.errors import ClientGone
from gateway.presence import Presence
from headrace.contract.errors import StoreUnavailable


class Wire:
    """A connection that says that it is gone when told to."""

    def __init__(self) -> None:
        self.cut = asyncio.Event()

    async def receive(self) -> Message:
        await self.cut.wait()
        return {"type": "http.disconnect"}


class Work:
    """Never done by itself; remembers that it was cancelled."""

    def __init__(self) -> None:
        self.begun = asyncio.Event()
        self.cancelled = False

    async def run(self) -> None:
        try:
            self.begun.set()
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.cancelled = True
            raise


async def test_the_result_comes_through() -> None:
    async def answer() -> int:
        return 42

    assert await Presence(Wire().receive, asyncio.Event()).during(answer()) == 42


async def test_an_error_comes_through() -> None:
    async def fail() -> None:
        raise KeyError("x")

    with pytest.raises(KeyError):
        await Presence(Wire().receive, asyncio.Event()).during(fail())


@pytest.mark.parametrize("client_leaves", [True, False])
async def test_work_is_given_up_when_nobody_waits_for_it(client_leaves: bool) -> None:
    wire, closing, work = Wire(), asyncio.Event(), Work()
    waiting = asyncio.create_task(Presence(wire.receive, closing).during(work.run()))
    await work.begun.wait()
    (wire.cut if client_leaves else closing).set()
    with pytest.raises(ClientGone if client_leaves else StoreUnavailable):
        await waiting
    assert work.cancelled
