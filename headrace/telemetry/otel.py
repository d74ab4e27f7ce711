"""Traces kept by OpenTelemetry and sent by OTLP over HTTP. The one module that imports it; knows no job.

Spans wait in a bounded queue for a thread that sends them in batches. Nobody ever waits for it: what does not fit, or
cannot be sent, is lost, and said once.
"""

import logging
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

import structlog
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import ALWAYS_ON, ParentBased

from headrace.contract.errors import SetupError
from headrace.telemetry.tracing import Attributes, Kind, Span, Tracing, valid_traceparent

PATH = "/v1/traces"
_KINDS = {"internal": trace.SpanKind.INTERNAL, "server": trace.SpanKind.SERVER, "consumer": trace.SpanKind.CONSUMER}

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Pace:
    """Spans wait until there are `batch` of them or the oldest has waited; beyond `most_waiting` they are lost."""

    batch: int = 256
    most_waiting: int = 4096
    wait_s: float = 1.0
    timeout_s: float = 5.0


def send_to(endpoint: str, service: str, pace: Pace = Pace()) -> "OtelTracing":
    """Traces of this process go to a collector's base URL. What a sampled flag decided upstream is kept to.

    Raises SetupError when the endpoint is no http(s) URL.
    """
    url = urlsplit(endpoint)
    if url.scheme not in ("http", "https") or not url.netloc:
        raise SetupError(
            f"{endpoint!r} is not the URL of an OTLP collector.",
            param="telemetry.otlp_endpoint",
            next_step="Give one like http://127.0.0.1:4318.",
        )
    # OpenTelemetry says every failed batch and each retry; `Told` says a failure once, and its end.
    logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)
    base = endpoint.rstrip("/").removesuffix(PATH)
    exporter = Told(OTLPSpanExporter(endpoint=base + PATH, timeout=pace.timeout_s), base)
    # Sampler, resource, address and pace are Headrace's. Of OpenTelemetry's own variables those count that say how to
    # reach a collector (headers, certificates, compression), its span limits, and the one that switches it all off.
    provider = TracerProvider(
        sampler=ParentBased(ALWAYS_ON), resource=Resource({"service.name": service}), shutdown_on_exit=False
    )
    provider.add_span_processor(
        BatchSpanProcessor(
            exporter,
            max_queue_size=pace.most_waiting,
            schedule_delay_millis=pace.wait_s * 1000,
            max_export_batch_size=pace.batch,
            export_timeout_millis=pace.timeout_s * 1000,
        )
    )
    return OtelTracing(provider)


class OtelTracing(Tracing):
    """Keeps spans with any provider of OpenTelemetry's; `close` ends it."""

    def __init__(self, provider: TracerProvider) -> None:
        self._provider = provider
        self._tracer = provider.get_tracer("headrace")

    def start(
        self,
        name: str,
        *,
        parent: str = "",
        kind: Kind = "internal",
        at_ms: float | None = None,
        attributes: Attributes | None = None,
        links: tuple[str, ...] = (),
    ) -> Span:
        # Never the context that happens to be active here: a worker's threads serve many jobs.
        remote = _remote(parent)
        context = Context() if remote is None else trace.set_span_in_context(trace.NonRecordingSpan(remote), Context())
        span = self._tracer.start_span(
            name,
            context=context,
            kind=_KINDS[kind],
            attributes=dict(attributes or {}),
            links=[trace.Link(linked) for link in links if (linked := _remote(link)) is not None],
            start_time=_ns(at_ms),
        )
        return OtelSpan(span, valid_traceparent(parent))

    def close(self, limit_s: float) -> None:
        # Its own shutdown may wait for a collector that does not answer.
        closing = threading.Thread(target=self._provider.shutdown, name="traces-close", daemon=True)
        closing.start()
        closing.join(limit_s)
        if closing.is_alive():
            _log.warning("traces left unsent", limit_s=limit_s)


class OtelSpan(Span):
    """A span of OpenTelemetry's. Where its SDK is switched off that is none, and what the client sent travels on."""

    def __init__(self, span: trace.Span, parent: str) -> None:
        context = span.get_span_context()
        own = f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"
        super().__init__(own if context.is_valid else parent)
        self._span = span

    def set(self, attributes: Attributes) -> None:
        self._span.set_attributes(dict(attributes))

    def rename(self, name: str) -> None:
        self._span.update_name(name)

    def event(self, name: str, attributes: Attributes | None = None, *, at_ms: float | None = None) -> None:
        self._span.add_event(name, dict(attributes or {}), _ns(at_ms))

    def fail(self, why: str) -> None:
        self._span.set_status(trace.StatusCode.ERROR, why)

    def end(self, *, at_ms: float | None = None) -> None:
        self._span.end(_ns(at_ms))


class Told(SpanExporter):
    """Another exporter whose failures are said once, and so is that they are over."""

    def __init__(self, exporter: SpanExporter, where: str) -> None:
        self._exporter = exporter
        self._where = where
        self._failing = False

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        try:
            result = self._exporter.export(spans)
        except Exception:  # noqa: BLE001 - whatever it is, these spans are lost and the next batch is tried.
            result = SpanExportResult.FAILURE
        failed = result is not SpanExportResult.SUCCESS
        if failed and not self._failing:
            _log.warning("traces cannot be sent", endpoint=self._where, lost=len(spans))
        elif self._failing and not failed:
            _log.info("traces can be sent again", endpoint=self._where)
        self._failing = failed
        return result

    def shutdown(self) -> None:
        self._exporter.shutdown()


def _remote(traceparent: str) -> trace.SpanContext | None:
    """None for what is no traceparent: a record may come from anywhere, and a worker must not end of it."""
    if not valid_traceparent(traceparent):
        return None
    _, trace_id, span_id, flags = traceparent.split("-")
    return trace.SpanContext(int(trace_id, 16), int(span_id, 16), True, trace.TraceFlags(int(flags, 16)))


def _ns(at_ms: float | None) -> int | None:
    """To the microsecond: nanoseconds since 1970 are more than a float can tell apart."""
    return None if at_ms is None else round(at_ms * 1000) * 1000
