"""Traces: which traceparents are believed, what happens without a collector, and that nobody waits for one."""

import socket
import sys
import time

import pytest
import structlog
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from headrace.contract.errors import SetupError
from headrace.settings import TelemetrySettings
from headrace.telemetry import tracing
from headrace.telemetry.otel import OtelTracing, Pace, send_to
from headrace.telemetry.tracing import OFF, open_tracing, valid_traceparent

GIVEN = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


@pytest.mark.parametrize(
    ("text", "believed"),
    [
        (GIVEN, GIVEN),
        (GIVEN[:-2] + "00", GIVEN[:-2] + "00"),
        ("cc" + GIVEN[2:] + "-of-a-later-version", GIVEN),
        ("", ""),
        (GIVEN.upper(), ""),
        ("ff" + GIVEN[2:], ""),
        (GIVEN + "-more", ""),
        (GIVEN[:-1], ""),
        ("00-" + "0" * 32 + GIVEN[35:], ""),
        (GIVEN[:36] + "0" * 16 + "-01", ""),
    ],
)
def test_a_traceparent_is_believed_when_it_is_one(text: str, believed: str) -> None:
    assert valid_traceparent(text) == believed


def test_without_an_endpoint_nothing_is_kept_and_the_clients_header_travels_on() -> None:
    assert open_tracing(TelemetrySettings(), "test") is OFF
    span = OFF.start("job.run", parent=GIVEN)
    span.set({"a": 1})
    span.event("b")
    span.end()
    OFF.close(1.0)
    assert span.traceparent == GIVEN
    assert OFF.start("job.run").traceparent == ""


def test_a_missing_library_and_a_wrong_endpoint_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    for endpoint in ("collector:4318", "grpc://collector:4317", "http://"):
        with pytest.raises(SetupError, match="not the URL"):
            open_tracing(TelemetrySettings(otlp_endpoint=endpoint), "test")
    monkeypatch.setitem(sys.modules, "headrace.telemetry.otel", None)
    with pytest.raises(SetupError) as caught:
        open_tracing(TelemetrySettings(otlp_endpoint="http://127.0.0.1:4318"), "test")
    assert "headrace[otel]" in caught.value.explain()


@pytest.mark.parametrize("parent", [GIVEN, ""])
def test_a_client_s_header_travels_on_where_opentelemetry_is_switched_off(
    parent: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    traces = send_to("http://127.0.0.1:9", "test")
    span = traces.start("job.run", parent=parent)
    span.event("moment")
    span.end()
    traces.close(5.0)
    assert span.traceparent == parent


def test_what_is_begun_within_a_trace_belongs_to_it() -> None:
    assert tracing.current() == ""
    with tracing.within(GIVEN):
        assert tracing.current() == GIVEN
    assert tracing.current() == ""
    assert tracing.trace_fields(GIVEN) == {"trace_id": "4bf92f3577b34da6a3ce929d0e0e4736"}
    assert tracing.trace_fields("") == {}


def test_spans_have_the_times_and_parents_that_they_are_given() -> None:
    kept = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(kept))
    traces = OtelTracing(provider)
    parent = traces.start("parent", parent="no traceparent at all")
    child = traces.start("child", parent=parent.traceparent, at_ms=1_795_398_904_582, links=(GIVEN, "nonsense"))
    child.event("moment", {"n": 1}, at_ms=1_795_398_904_582.5)
    child.fail("poison")
    child.end(at_ms=1_795_398_904_583)
    parent.end()
    traces.close(5.0)
    first, second = kept.get_finished_spans()
    assert (first.name, second.name) == ("child", "parent")
    assert second.parent is None
    assert first.parent is not None
    assert valid_traceparent(parent.traceparent) == parent.traceparent
    assert f"{first.parent.span_id:016x}" == parent.traceparent.split("-")[2]
    assert (first.start_time, first.end_time) == (1_795_398_904_582_000_000, 1_795_398_904_583_000_000)
    assert first.events[0].timestamp == 1_795_398_904_582_500_000
    assert [f"{link.context.trace_id:032x}" for link in first.links] == [GIVEN[3:35]]
    assert not first.status.is_ok


def test_nobody_waits_for_a_collector_that_does_not_answer_and_it_is_said_once() -> None:
    pace = Pace(batch=8, most_waiting=16, timeout_s=0.05)
    with socket.socket() as silent, structlog.testing.capture_logs() as said:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        traces = send_to(f"http://127.0.0.1:{silent.getsockname()[1]}", "test", pace)
        began = time.monotonic()
        for _ in range(500):
            traces.start("job.run").end()
        assert time.monotonic() - began < 1.0
        deadline = time.monotonic() + 10
        while not said and time.monotonic() < deadline:
            time.sleep(0.01)
        traces.start("job.run").end()
        began = time.monotonic()
        traces.close(0.5)
        assert time.monotonic() - began < 2.0
    assert [line["event"] for line in said if line["event"] == "traces cannot be sent"] == ["traces cannot be sent"]
