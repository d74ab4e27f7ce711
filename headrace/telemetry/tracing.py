"""Traces from a request to its last token, as the rest of the house sees them. Knows W3C's traceparent, no exporter.

Traces are kept when there is somewhere to send them; OpenTelemetry, an extra, is imported only then. Otherwise a span
costs nothing and knows nothing but its parent, so what a client sent as `traceparent` travels on as it came.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Literal

from headrace.contract.errors import SetupError
from headrace.settings import TelemetrySettings

HEADER = "traceparent"
FORM = re.compile(r"(?!ff)([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-[ -~]*)?")

Attributes = Mapping[str, str | int | float | bool | Sequence[str]]
Kind = Literal["internal", "server", "consumer"]

_current: ContextVar[str] = ContextVar("traceparent", default="")


class Span:
    """One piece of work that is not kept; the shape of those that are. Times are milliseconds since 1970.

    `traceparent` is what the next hop is told: that of the parent, since this span is none.
    """

    def __init__(self, traceparent: str) -> None:
        self.traceparent = traceparent

    def set(self, attributes: Attributes) -> None:
        """Attributes are facts about the work, never what a user wrote."""

    def rename(self, name: str) -> None:
        """For a name that is only known later."""

    def event(self, name: str, attributes: Attributes | None = None, *, at_ms: float | None = None) -> None:
        """A moment within it."""

    def fail(self, why: str) -> None:
        """It did not do what it was to do; `why` is a code or a few words of ours."""

    def end(self, *, at_ms: float | None = None) -> None:
        """Exactly once, now or at `at_ms`."""


class Tracing:
    """Starts spans that are not kept; the shape of what keeps them. Safe for any thread, never waits."""

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
        """`parent` and `links` are traceparents; without a parent a trace begins here."""
        return Span(parent)

    def close(self, limit_s: float) -> None:
        """Send what is left, for at most so long."""


OFF = Tracing()


def open_tracing(settings: TelemetrySettings, service: str) -> Tracing:
    """What the settings want. Raises SetupError when OpenTelemetry is not installed or the endpoint is no URL."""
    if not settings.otlp_endpoint:
        return OFF
    try:
        from headrace.telemetry.otel import send_to
    except ImportError as error:
        raise SetupError(
            "Traces need OpenTelemetry, which is not installed.",
            param="telemetry.otlp_endpoint",
            next_step="Run: pip install 'headrace[otel]', or leave telemetry.otlp_endpoint empty.",
        ) from error
    return send_to(settings.otlp_endpoint, service)


def valid_traceparent(text: str) -> str:
    """A traceparent as W3C Trace Context has it, in the form of version 00; empty for what is none."""
    match = FORM.fullmatch(text)
    if match is None or (match[1] == "00" and match[5]) or not int(match[2], 16) or not int(match[3], 16):
        return ""
    return f"00-{match[2]}-{match[3]}-{match[4]}"


def trace_fields(traceparent: str) -> dict[str, str]:
    """`{"trace_id": …}` for a log line, empty without a trace."""
    return {"trace_id": traceparent[3:35]} if traceparent else {}


def current() -> str:
    """The traceparent that work begun here belongs to; empty for none."""
    return _current.get()


@contextmanager
def within(traceparent: str) -> Iterator[None]:
    """What is begun in this block belongs to this traceparent."""
    token = _current.set(traceparent)
    try:
        yield
    finally:
        _current.reset(token)
