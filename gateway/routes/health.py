"""Health and metrics of this process, the store and the fleet. Knows the beats' fields, not who reads the replies."""

import asyncio
from typing import Any

import structlog
from fastapi import APIRouter, Response

from gateway.errors import error_response, json_response
from gateway.metrics import CONTENT_TYPE, fleet_families
from gateway.services import Services
from headrace.contract.errors import HeadraceError, SetupError, StoreUnavailable
from headrace.store.beats import Beat
from headrace.store.lanes import Lanes, read_lanes

_log = structlog.get_logger(__name__)


def router(services: Services) -> APIRouter:
    routes = APIRouter(tags=["health"])
    readiness = Readiness(services)

    @routes.get("/health/live")
    async def live() -> Response:
        """Whether this process answers at all."""
        return json_response({"status": "live"})

    @routes.get("/health/ready")
    async def ready() -> Response:
        """Whether jobs can be accepted: the store takes writes and keeps them. Workers are not asked."""
        trouble = await readiness.check()
        return json_response({"status": "ready"}) if trouble is None else error_response(trouble)

    @routes.get("/health/fleet")
    async def fleet() -> Response:
        """Who is alive, from the beats of the last ten seconds."""
        workers = [_worker(beat) for beat in await services.beats.all()]
        return json_response({"status": "ok" if workers else "no_workers", "workers": workers})

    @routes.get("/metrics")
    async def metrics() -> Response:
        """Prometheus' text format: this gateway's own, and every worker's under its `worker` label."""
        try:
            beats, lanes = await services.beats.all(), await read_lanes(services.queue.client)
            services.metrics.store_up.set(1)
        except StoreUnavailable:
            # What this process knows of itself is worth most during an outage.
            beats, lanes = (), Lanes((), ())
            services.metrics.store_up.set(0)
        page = services.metrics.text({beat.worker: beat.metrics for beat in beats}, fleet_families(beats, lanes))
        return Response(page, headers={"content-type": CONTENT_TYPE})

    return routes


class Readiness:
    """Asks the store, with a limit on the wait, and says a change once in the log."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._said = ""

    async def check(self) -> HeadraceError | None:
        limit = self._services.settings.redis.socket_timeout_s
        try:
            async with asyncio.timeout(limit):
                trouble = await self._services.probe.trouble()
        except TimeoutError:
            trouble = StoreUnavailable(f"Redis did not answer within {limit:g} s.")
        if isinstance(trouble, SetupError):
            # A server that would lose jobs is, to a client, one that cannot take them.
            trouble = StoreUnavailable(trouble.message, next_step=trouble.next_step)
        reason = trouble.message if trouble else ""
        if reason != self._said:
            self._said = reason
            if trouble:
                _log.error("gateway.not_ready", reason=trouble.explain())
            else:
                _log.info("gateway.ready")
        return trouble


def _worker(beat: Beat) -> dict[str, Any]:
    return {
        "id": beat.worker,
        "lane": beat.lane,
        "state": beat.state,
        "revision": beat.revision,
        "digest": beat.digest,
        "capacity": beat.capacity,
        "held": beat.held,
        "step_age_ms": beat.step_age_ms,
        "at": beat.at,
    }
