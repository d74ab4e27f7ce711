"""What every reply has in common: a request id, a span, a log line, a count, an answer even when we fail.

Knows no route.
"""

import re
import secrets
import time
from collections.abc import MutableMapping
from typing import Any

import structlog
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.errors import REFUSED, error_response
from gateway.metrics import GatewayMetrics
from headrace.contract.errors import HeadraceError
from headrace.telemetry import tracing
from headrace.telemetry.tracing import Span, Tracing

_log = structlog.get_logger(__name__)
_SANE_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")
_QUIET = ("/health/", "/metrics")  # asked every second by machines: counted, but neither logged nor traced


class Envelope:
    """Outermost layer. A client may bring its own `x-request-id`, so that its logs and ours can be joined, and a
    `traceparent`, so that its traces can.

    A WebSocket has a span and ids for its log lines as well; its route counts it.
    """

    def __init__(self, app: ASGIApp, metrics: GatewayMetrics, traces: Tracing = tracing.OFF) -> None:
        self._app = app
        self._metrics = metrics
        self._traces = traces

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        request_id = _header(scope, b"x-request-id", _SANE_ID) or f"req_{secrets.token_hex(12)}"
        span = self._begin(scope, request_id)
        try:
            with (
                structlog.contextvars.bound_contextvars(
                    request_id=request_id, **tracing.trace_fields(span.traceparent)
                ),
                tracing.within(span.traceparent),
            ):
                if scope["type"] == "http":
                    await self._answer(scope, receive, send, request_id, span)
                else:
                    await self._app(scope, receive, send)
        finally:
            span.rename(f"{_method(scope)} {_route(scope)}")
            span.set({"http.route": _route(scope)})
            span.end()

    async def _answer(self, scope: Scope, receive: Receive, send: Send, request_id: str, span: Span) -> None:
        status = 0
        began = time.perf_counter()

        async def send_marked(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", []), (b"x-request-id", request_id.encode())]
            await send(message)

        with self._metrics.open_requests.track_inprogress():
            try:
                await self._app(scope, receive, send_marked)
            except Exception:
                # The request ends here with a 500 (or a cut stream); every other one goes on.
                _log.exception("gateway.request_failed", method=scope["method"], path=scope["path"])
                if status:
                    span.fail("cut")
                    raise
                scope[REFUSED] = HeadraceError.code
                failure = error_response(HeadraceError(f"Something went wrong here; our log has it as {request_id}."))
                await failure(scope, receive, send_marked)
            finally:
                self._report(scope, status, time.perf_counter() - began)
                if status:
                    span.set({"http.response.status_code": status})
                if status >= 500:
                    span.fail(str(status))

    def _begin(self, scope: Scope, request_id: str) -> Span:
        parent = tracing.valid_traceparent(_header(scope, tracing.HEADER.encode(), tracing.FORM))
        if scope["path"].startswith(_QUIET):
            return Span(parent)
        attributes = {
            "http.request.method": _method(scope),
            "url.path": scope["path"],
            "headrace.request_id": request_id,
        }
        return self._traces.start(_method(scope), parent=parent, kind="server", attributes=attributes)

    def _report(self, scope: MutableMapping[str, Any], status: int, seconds: float) -> None:
        route = _route(scope)
        self._metrics.requests.labels(route, scope["method"], str(status)).inc()
        self._metrics.request_seconds.labels(route).observe(seconds)
        if REFUSED in scope:
            self._metrics.refusals.labels(scope[REFUSED]).inc()
        if not scope["path"].startswith(_QUIET):
            _log.info(
                "gateway.request",
                method=scope["method"],
                path=scope["path"],
                status=status,
                seconds=round(seconds, 4),
            )


def _method(scope: MutableMapping[str, Any]) -> str:
    """A WebSocket begins as a GET."""
    return str(scope.get("method", "GET"))


def _route(scope: MutableMapping[str, Any]) -> str:
    """The route's pattern, never the path, so that there is a bounded number of them."""
    return str(getattr(scope.get("route"), "path", "unknown"))


def _header(scope: Scope, name: bytes, form: re.Pattern[str]) -> str:
    """The first header of this name that has this form; empty without one."""
    for found, value in scope["headers"]:
        text = str(value.decode("latin-1"))
        if found == name and form.fullmatch(text):
            return text
    return ""
