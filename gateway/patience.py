"""How long a client may take to read: one timer for a whole stream of sends. Knows clocks, no frames."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from gateway.errors import ClientGone


class Patience:
    """Watches the sends of one task. A timer for each would cost more than sending; this one looks once in `limit_s`,
    and at the very end of a send that has hung since it last looked."""

    def __init__(self, limit: asyncio.Timeout, limit_s: float) -> None:
        self._limit = limit
        self._limit_s = limit_s
        self._loop = asyncio.get_running_loop()
        self._since: float | None = None
        self._timer = self._loop.call_later(limit_s, self._look)

    def begin(self) -> None:
        """A send starts now."""
        self._since = self._loop.time()

    def end(self) -> None:
        self._since = None

    def stop(self) -> None:
        self._timer.cancel()

    def _look(self) -> None:
        now = self._loop.time()
        over_at = now + self._limit_s if self._since is None else self._since + self._limit_s
        if over_at <= now:
            self._limit.reschedule(now)
        else:
            self._timer = self._loop.call_at(over_at, self._look)


@asynccontextmanager
async def patience(limit_s: float) -> AsyncIterator[Patience]:
    """Around all the sends of a task. Raises ClientGone once one of them has taken `limit_s`."""
    limit = asyncio.timeout(None)
    try:
        async with limit:
            watch = Patience(limit, limit_s)
            try:
                yield watch
            finally:
                watch.stop()
    except TimeoutError:
        if limit.expired():
            raise ClientGone from None
        raise
