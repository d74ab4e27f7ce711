"""What the outermost layer does to every request: ids in log lines, spans, counts. The app under it does nothing."""

from typing import Any

import structlog
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from starlette.types import Message, Receive, Scope, Send

from gateway.envelope import Envelope
from gateway.metrics import GatewayMetrics
from headrace.telemetry import tracing
from headrace.telemetry.otel import OtelTracing
from headrace.telemetry.tracing import OFF, Tracing

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
GIVEN = f"00-{TRACE}-00f067aa0ba902b7-01"


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """Logs, and fails where it is told to."""
    structlog.get_logger(__name__).info("answering", current=tracing.current())
    if scope["path"] == "/broken":
        raise RuntimeError("told to")
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b""})


async def call(path: str, traces: Tracing, metrics: GatewayMetrics | None = None, *headers: str) -> list[Any]:
    """The log lines of one request."""
    scope = {
        "type": "http",
        "method": "GET",
        "path": path,
        "headers": [(b"traceparent", h.encode("latin-1")) for h in headers],
    }

    async def receive() -> Message:
        return {"type": "http.request", "body": b""}

    async def send(_: Message) -> None:
        return

    with structlog.testing.capture_logs([structlog.contextvars.merge_contextvars]) as lines:
        await Envelope(app, metrics or GatewayMetrics(), traces)(scope, receive, send)
    return list(lines)


async def test_a_log_line_carries_the_trace_when_there_is_one() -> None:
    inside, after = await call("/x", OFF, None, GIVEN)
    assert inside["trace_id"] == after["trace_id"] == TRACE
    assert inside["request_id"] == after["request_id"] != ""
    assert inside["current"] == GIVEN
    for headers in ((), ("nonsense",), (f"cc{GIVEN[2:]}-\xe9",)):
        inside, after = await call("/x", OFF, None, *headers)
        assert "trace_id" not in inside | after
        assert inside["current"] == ""


async def test_what_fails_is_a_failed_span_and_a_refusal_and_health_is_neither_traced_nor_logged() -> None:
    kept, metrics = InMemorySpanExporter(), GatewayMetrics()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(kept))
    traces = OtelTracing(provider)
    _, failed, _ = await call("/broken", traces, metrics)
    assert [line["event"] for line in await call("/health/live", traces, metrics)] == ["answering"]
    (span,) = kept.get_finished_spans()
    assert span.context is not None
    assert failed["trace_id"] == f"{span.context.trace_id:032x}"
    assert (span.name, span.status.is_ok) == ("GET unknown", False)
    assert span.attributes is not None
    assert span.attributes["http.response.status_code"] == 500
    assert b'headrace_gateway_refusals_total{code="internal_error"} 1.0' in metrics.text({})
