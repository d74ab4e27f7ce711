"""What every reply has in common: a request id, a log line, a count, an answer even when we fail. Knows no route."""

import re
import secrets
import time
from collections.abc import MutableMapping
from typing import Any

import structlog
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.errors import error_response
from gateway.metrics import GatewayMetrics
from headrace.contract.errors import HeadraceError

_log = structlog.get_logger(__name__)
_SANE_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")
_QUIET = ("/health/", "/metrics")  # asked every second by machines: counted, not logged


class Envelope:
    """Outermost layer. A client may bring its own `x-request-id`, so that its logs and ours can be joined."""

    def __init__(self, app: ASGIApp, metrics: GatewayMetrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = _request_id(scope)
        status = 0
        began = time.perf_counter()

        async def send_marked(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", []), (b"x-request-id", request_id.encode())]
            await send(message)

        with (
            structlog.contextvars.bound_contextvars(request_id=request_id),
            self._metrics.open_requests.track_inprogress(),
        ):
            try:
                await self._app(scope, receive, send_marked)
            except Exception:
                # The request ends here with a 500 (or a cut stream); every other one goes on.
                _log.exception("gateway.request_failed", method=scope["method"], path=scope["path"])
                if status:
                    raise
                failure = error_response(HeadraceError(f"Something went wrong here; our log has it as {request_id}."))
                await failure(scope, receive, send_marked)
            finally:
                self._report(scope, status, time.perf_counter() - began)

    def _report(self, scope: MutableMapping[str, Any], status: int, seconds: float) -> None:
        route = getattr(scope.get("route"), "path", "unknown")
        self._metrics.requests.labels(route, scope["method"], str(status)).inc()
        self._metrics.request_seconds.labels(route).observe(seconds)
        if not scope["path"].startswith(_QUIET):
            _log.info(
                "gateway.request",
                method=scope["method"],
                path=scope["path"],
                status=status,
                seconds=round(seconds, 4),
            )


def _request_id(scope: Scope) -> str:
    for name, value in scope["headers"]:
        if name == b"x-request-id" and _SANE_ID.fullmatch(value.decode("latin-1")):
            return str(value.decode())
    return f"req_{secrets.token_hex(12)}"
