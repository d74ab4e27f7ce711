"""The gateway's share of tidying up, once a tick: what nobody holds any more, and the index of jobs.

Knows what is to be called, not the rules.
"""

import asyncio

import structlog

from gateway.metrics import GatewayMetrics
from headrace.contract.errors import StoreUnavailable
from headrace.queue.async_redis import AsyncRedisQueue
from headrace.queue.base import ReapReply, ReapRequest
from headrace.store.job_index import JobIndex

_log = structlog.get_logger(__name__)


async def sweep_forever(queue: AsyncRedisQueue, index: JobIndex, metrics: GatewayMetrics, every_s: float) -> None:
    """Reap and tidy every `every_s` seconds until cancelled. There is no leader: any number may."""
    away = False
    while True:
        try:
            _report(await queue.reap(ReapRequest()), metrics)
            await index.tidy()
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


def _report(reply: ReapReply, metrics: GatewayMetrics) -> None:
    for fate, jobs in (("requeued", reply.requeued), ("expired", reply.expired), ("dead", reply.dead)):
        if jobs:
            metrics.reaped.labels(fate).inc(len(jobs))
        for job in jobs:
            _log.info("gateway.reaped", job=job, fate=fate)
