"""Jobs that nobody waits for any more, until they are cancelled. Knows ids, not how they came to be here."""

from collections import deque

import structlog

from headrace.contract.errors import StoreUnavailable
from headrace.queue.async_redis import AsyncRedisQueue

MOST_KEPT = 10_000
"""Beyond it the oldest are let run to their end, unread."""

_log = structlog.get_logger(__name__)


class Abandoned:
    """Best effort: an id waits here as long as the store cannot be asked and this gateway lives."""

    def __init__(self, queue: AsyncRedisQueue) -> None:
        self._queue = queue
        self._ids: deque[str] = deque(maxlen=MOST_KEPT)

    def add(self, job_id: str) -> None:
        self._ids.append(job_id)

    async def cancel(self) -> None:
        """Cancel what is here. What the store cannot be asked for stays, and StoreUnavailable is not raised."""
        while self._ids:
            job_id = self._ids.popleft()
            try:
                reply = await self._queue.cancel(job_id)
            except StoreUnavailable as error:
                self._ids.append(job_id)
                _log.warning("gateway.cancel_failed", job=job_id, reason=error.message)
                return
            _log.info("gateway.cancelled", job=job_id, outcome=reply.outcome, reason="nobody waits for it")
