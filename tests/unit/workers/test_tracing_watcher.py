"""What the life of a job leaves in its trace, for the ends that a whole fleet shows only when it is broken."""

from dataclasses import replace

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from headrace.contract.errors import ErrorInfo
from headrace.contract.generation import Usage
from headrace.contract.job import State
from headrace.queue.base import Ending
from headrace.telemetry.otel import OtelTracing
from tests.unit.workers.jobs import make_job
from workers.inference.facts import Began, Claimed, Delivered, Ended, Fact, Left, Retried, Why
from workers.inference.tracing_watcher import TracingWatcher

ERROR = ErrorInfo("no_progress", "Stuck.", retryable=True)
JOB = make_job(
    created_at=1_000_000,
    queued_at=1_000_500,
    leased_at=1_002_000,
    attempt=1,
    traceparent="00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
)
FAILED = Ending(State.FAILED, Usage(3, 7), error=ERROR)


def run_spans(*facts: Fact) -> list[ReadableSpan]:
    """The attempts' spans of these facts, of which one comes each half second."""
    kept, now = InMemorySpanExporter(), 70.0
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(kept))
    tell = TracingWatcher(OtelTracing(provider), clock=lambda: now)
    for fact in facts:
        tell(fact)
        now += 0.5
    return [span for span in kept.get_finished_spans() if span.name == "job.run"]


@pytest.mark.parametrize(
    ("last", "event", "status"),
    [
        (Retried(JOB, ERROR, 1000), "retried", StatusCode.ERROR),
        (Left(JOB, Why.CANCELLED), "left", StatusCode.UNSET),
        (Ended(JOB, FAILED, State.DEAD), None, StatusCode.ERROR),
    ],
)
def test_an_attempt_ends_with_what_ended_it(last: Fact, event: str | None, status: StatusCode) -> None:
    (span,) = run_spans(Claimed(JOB), Began(JOB), Delivered(JOB, 7, True), last)
    assert [moment.name for moment in span.events] == ["started", "first_token", *([event] if event else [])]
    assert span.status.status_code is status
    assert span.attributes is not None
    assert span.attributes["headrace.attempt.output_tokens"] == 7
    assert (span.start_time, span.end_time) == (1_002_000_000_000, 1_003_500_000_000)


def test_attempts_of_one_worker_are_not_mixed_up_and_what_it_never_claimed_is_left_alone() -> None:
    again = replace(JOB, epoch=3, attempt=2)
    other = make_job("job_2")
    spans = run_spans(Claimed(JOB), Claimed(again), Delivered(other, 1, True), Left(JOB, Why.LEASE_LOST), Began(again))
    (span,) = spans
    assert span.attributes is not None
    assert span.attributes["headrace.attempt"] == 1
