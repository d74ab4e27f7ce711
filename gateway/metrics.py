"""What this gateway counts of itself, and how it shows the workers'. Knows names, not where the facts arise."""

from collections.abc import Iterable, Mapping
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import Metric

from headrace.telemetry.metrics import SECONDS, WorkerCollector

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class GatewayMetrics:
    """One registry for each gateway, so that two in one process do not count together."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self.requests = Counter(
            "headrace_gateway_requests",
            "HTTP requests answered; status 0 is a client that left before a status was chosen.",
            ["route", "method", "status"],
            registry=self._registry,
        )
        self.request_seconds = Histogram(
            "headrace_gateway_request_seconds",
            "Time from a request to the end of its reply, streams included.",
            ["route"],
            buckets=(*SECONDS, 60.0, 300.0),
            registry=self._registry,
        )
        self.first_token_seconds = Histogram(
            "headrace_gateway_first_token_seconds",
            "Time from submit to the first text of an OpenAI route.",
            buckets=SECONDS,
            registry=self._registry,
        )
        self.open_requests = Gauge(
            "headrace_gateway_open_requests", "Requests being answered now.", registry=self._registry
        )
        self.jobs = Counter(
            "headrace_gateway_jobs_accepted", "Jobs accepted, replays not counted.", ["kind"], registry=self._registry
        )
        self.store_up = Gauge(
            "headrace_gateway_store_up", "1 when the last look at the store succeeded.", registry=self._registry
        )

    def families(self) -> Iterable[Metric]:
        """What this gateway counts, for the documents."""
        return self._registry.collect()

    def text(self, workers: Mapping[str, Mapping[str, Any]]) -> bytes:
        """Everything in Prometheus' text format; `workers` maps worker ids to the snapshots in their beats."""
        shown = CollectorRegistry()
        shown.register(WorkerCollector(workers))
        return generate_latest(self._registry) + generate_latest(shown)
