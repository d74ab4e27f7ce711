"""What this gateway counts of itself, and the page that shows it with the workers' and the fleet's.

Knows rows of the table, not where the facts arise.
"""

from collections import Counter as Tally
from collections.abc import Mapping, Sequence
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from headrace.store.beats import Beat
from headrace.store.lanes import Lanes
from headrace.telemetry.exposition import Values, fleet_text, workers_text
from headrace.telemetry.metrics import METRICS

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class GatewayMetrics:
    """One registry for each gateway, so that two in one process do not count together."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self.requests = self._counter("headrace_gateway_requests_total")
        self.request_seconds = self._histogram("headrace_gateway_request_seconds")
        self.first_token_seconds = self._histogram("headrace_gateway_first_token_seconds")
        self.open_requests = self._gauge("headrace_gateway_open_requests")
        self.open_websockets = self._gauge("headrace_gateway_open_websockets")
        self.jobs = self._counter("headrace_gateway_jobs_accepted_total")
        self.refusals = self._counter("headrace_gateway_refusals_total")
        self.events_sent = self._counter("headrace_gateway_events_sent_total")
        self.reaped = self._counter("headrace_gateway_jobs_reaped_total")
        self.store_up = self._gauge("headrace_gateway_store_up")

    def text(self, workers: Mapping[str, Mapping[str, Any]], fleet: Mapping[str, Values] | None = None) -> bytes:
        """Everything in Prometheus' text format.

        `workers` maps worker ids to the snapshots in their beats, `fleet` names of the table to values by labels.
        """
        return generate_latest(self._registry) + (fleet_text(fleet or {}) + workers_text(workers)).encode()

    def _counter(self, name: str) -> Counter:
        row = METRICS[name]
        return Counter(name, row.help, row.labels, registry=self._registry)

    def _gauge(self, name: str) -> Gauge:
        row = METRICS[name]
        return Gauge(name, row.help, row.labels, registry=self._registry)

    def _histogram(self, name: str) -> Histogram:
        row = METRICS[name]
        return Histogram(name, row.help, row.labels, buckets=row.buckets, registry=self._registry)


def fleet_families(beats: Sequence[Beat], lanes: Lanes) -> dict[str, Values]:
    """What the store says of the whole fleet at this moment, by name of the table."""
    workers = Tally((beat.lane, beat.state) for beat in beats)
    kv_tokens: Tally[str] = Tally()
    for beat in beats:
        kv_tokens[beat.lane] += beat.capacity
    return {
        "headrace_queue_jobs": [((one.lane, one.job_class.value), one.jobs) for one in lanes.waiting],
        "headrace_queue_oldest_seconds": [((one.lane, one.job_class.value), one.oldest_s) for one in lanes.waiting],
        "headrace_dead_jobs": [((lane,), jobs) for lane, jobs in lanes.dead],
        "headrace_fleet_workers": sorted(workers.items()),
        "headrace_fleet_kv_tokens": [((lane,), tokens) for lane, tokens in sorted(kv_tokens.items())],
    }
