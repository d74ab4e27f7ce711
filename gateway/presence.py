"""Whether there is still somebody to answer: the client's connection and this gateway's own time. Knows no routes."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from starlette.types import Receive

from gateway.errors import ClientGone, stopping
from headrace.cancelling import end_tasks

T = TypeVar("T")


class Presence:
    """Runs work for one client and gives it up when the client leaves or the gateway stops.

    To be used once the body has been read: from then on `receive` only ever says that the client is gone.
    """

    def __init__(self, receive: Receive, closing: asyncio.Event) -> None:
        self._receive = receive
        self._closing = closing

    async def during(self, work: Coroutine[Any, Any, T]) -> T:
        """The result of `work`. Raises ClientGone or the stopping error; the work has been cancelled by then."""
        task = asyncio.create_task(work)
        gone = asyncio.create_task(self._gone())
        closing = asyncio.create_task(self._closing.wait())
        try:
            await asyncio.wait({task, gone, closing}, return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                return task.result()
            raise ClientGone if gone.done() else stopping()
        finally:
            await end_tasks(task, gone, closing)

    async def _gone(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
