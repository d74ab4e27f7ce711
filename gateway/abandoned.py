"""Jobs that nobody waits for any more, until they are cancelled. Knows ids, not how they came to be here."""

import asyncio
from collections.abc import Sequence

import structlog

from headrace.contract.errors import StoreUnavailable
from headrace.queue.async_redis import AsyncRedisQueue

MOST_KEPT = 10_000
"""Beyond it the oldest are let run to their end, unread."""

_log = structlog.get_logger(__name__)


class Abandoned:
    """Best effort: an id waits here until the store has heard of it, as long as this gateway lives.

    A request tries its own ids only, so that it never waits for those of others; `cancel_forever` tries the rest.
    """

    def __init__(self, queue: AsyncRedisQueue) -> None:
        self._queue = queue
        self._ids: dict[str, None] = {}  # a set that keeps its order

    def add(self, job_id: str) -> None:
        self._ids[job_id] = None
        if len(self._ids) > MOST_KEPT:
            del self._ids[next(iter(self._ids))]

    async def cancel(self, job_ids: Sequence[str]) -> None:
        """Cancel these. Nothing is raised: what the store cannot be asked for stays here, and so does what is being
        asked for when this is cancelled."""
        for job_id in job_ids:
            self.add(job_id)
        for job_id in job_ids:
            if job_id not in self._ids:
                continue  # another one was faster
            try:
                reply = await self._queue.cancel(job_id)
            except StoreUnavailable as error:
                _log.warning("gateway.cancel_failed", job=job_id, reason=error.message)
                return
            except Exception:  # noqa: BLE001
                # One job that cannot be cancelled must not keep the others.
                _log.exception("gateway.cancel_failed", job=job_id)
                continue
            self._ids.pop(job_id, None)
            _log.info("gateway.cancelled", job=job_id, outcome=reply.outcome, reason="nobody waits for it")

    async def cancel_all(self) -> None:
        """Cancel what is here now, like `cancel`."""
        await self.cancel(tuple(self._ids))

    async def cancel_forever(self, every_s: float) -> None:
        """A task of its own: a backlog of thousands, after an outage, must not hold up whoever reaps."""
        while True:
            await asyncio.sleep(every_s)
            await self.cancel_all()
