"""The gateway's share of reaping: a tick that puts back what nobody holds any more. Knows the verb, not its rules."""

import asyncio

import structlog

from headrace.contract.errors import StoreUnavailable
from headrace.queue.async_redis import AsyncRedisQueue
from headrace.queue.base import ReapReply, ReapRequest

_log = structlog.get_logger(__name__)


async def sweep_forever(queue: AsyncRedisQueue, every_s: float) -> None:
    """Reap every `every_s` seconds until cancelled. There is no leader: any number may do it at any time."""
    away = False
    while True:
        try:
            _report(await queue.reap(ReapRequest()))
            away = False
        except StoreUnavailable as error:
            # Said once for an outage; the jobs are safe where they are, and the next tick tries again.
            if not away:
                _log.warning("gateway.store_unavailable", reason=error.message)
            away = True
        except Exception:  # noqa: BLE001
            # Whatever it was, the next tick must come: nobody may be left to reap otherwise.
            _log.exception("gateway.reap_failed")
        await asyncio.sleep(every_s)


def _report(reply: ReapReply) -> None:
    for fate, jobs in (("requeued", reply.requeued), ("expired", reply.expired), ("dead", reply.dead)):
        for job in jobs:
            _log.info("gateway.reaped", job=job, fate=fate)
