"""One table of metrics, how a worker records them, and how a gateway shows them. Knows names, not where facts arise.

A worker puts its snapshot into its beat; the gateway's `/metrics` shows every worker's under a `worker` label.
"""

import bisect
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
ROWS = (1.0, 2.0, 4.0, 8.0, 16.0, 24.0, 32.0, 48.0, 64.0)


@dataclass(frozen=True, slots=True)
class MetricRow:
    """One row of the table. Counters end in `_total`; buckets are upper bounds, ascending, without +Inf."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    help: str
    buckets: tuple[float, ...] = ()


WORKER_METRICS: Mapping[str, MetricRow] = {
    row.name: row
    for row in (
        MetricRow("headrace_engine_decode_rows", "histogram", "Rows that decoded a token, by step.", ROWS),
        MetricRow("headrace_engine_step_seconds", "histogram", "Duration of an engine step.", SECONDS),
        MetricRow("headrace_engine_prefill_tokens_total", "counter", "Prompt tokens computed."),
        MetricRow("headrace_engine_decoded_tokens_total", "counter", "Tokens sampled."),
        MetricRow("headrace_engine_running", "gauge", "Requests in the running state."),
        MetricRow("headrace_engine_waiting", "gauge", "Requests in the waiting state."),
        MetricRow("headrace_engine_kv_pages_used", "gauge", "KV cache pages in use."),
        MetricRow("headrace_engine_kv_pages", "gauge", "KV cache pages in all."),
        MetricRow("headrace_engine_preemptions_total", "counter", "Requests sent back to waiting for want of pages."),
        MetricRow("headrace_worker_engine_deaths_total", "counter", "Engine processes that died or were killed hung."),
        MetricRow("headrace_worker_jobs_held", "gauge", "Jobs this worker holds a lease on."),
        MetricRow("headrace_worker_jobs_claimed_total", "counter", "Jobs claimed."),
        MetricRow("headrace_worker_jobs_finished_total", "counter", "Jobs ended by this worker."),
        MetricRow("headrace_worker_leases_lost_total", "counter", "Leases that turned out to be another's."),
        MetricRow("headrace_worker_diverged_total", "counter", "Repeated deltas with other ids than before: an alarm."),
    )
}


class Recorder:
    """Counts for one process. Safe to call from any thread; an unknown name is a KeyError, not a new metric."""

    def __init__(self, table: Mapping[str, MetricRow] = WORKER_METRICS) -> None:
        self._table = table
        self._lock = threading.Lock()
        self._counters = {row.name: 0.0 for row in table.values() if row.kind == "counter"}
        self._gauges = {row.name: 0.0 for row in table.values() if row.kind == "gauge"}
        self._histograms = {row.name: [0] * (len(row.buckets) + 1) for row in table.values() if row.kind == "histogram"}
        self._sums = dict.fromkeys(self._histograms, 0.0)

    def add(self, name: str, by: float = 1.0) -> None:
        with self._lock:
            self._counters[name] += by

    def set(self, name: str, value: float) -> None:
        with self._lock:
            self._gauges[name] = value

    def observe(self, name: str, value: float) -> None:
        with self._lock:
            self._histograms[name][bisect.bisect_left(self._table[name].buckets, value)] += 1
            self._sums[name] += value

    def snapshot(self) -> dict[str, Any]:
        """Everything as JSON: `{counters: {name: value}, gauges: …, histograms: {name: {buckets, sum, count}}}`.

        Buckets are pairs of upper bound and cumulative count; the count over all stands in `count`.
        """
        with self._lock:
            return {
                "counters": dict(self._counters),
                "gauges": dict(self._gauges),
                "histograms": {name: self._histogram(name) for name in self._histograms},
            }

    def _histogram(self, name: str) -> dict[str, Any]:
        buckets: list[list[float]] = []
        seen = 0
        for bound, count in zip(self._table[name].buckets, self._histograms[name], strict=False):
            seen += count
            buckets.append([bound, seen])
        return {"buckets": buckets, "sum": self._sums[name], "count": seen + self._histograms[name][-1]}


class WorkerCollector(Collector):
    """Shows the snapshots of workers as Prometheus families with a `worker` label.

    Names that this table does not know (a newer worker's) are left out.
    """

    def __init__(self, snapshots: Mapping[str, Mapping[str, Any]]) -> None:
        self._snapshots = snapshots

    def collect(self) -> Iterable[Metric]:
        for row in WORKER_METRICS.values():
            yield self._family(row)

    def _family(self, row: MetricRow) -> Metric:
        if row.kind == "histogram":
            histogram = HistogramMetricFamily(row.name, row.help, labels=["worker"])
            for worker, data in self._series(row, "histograms"):
                buckets = [(str(float(bound)), float(count)) for bound, count in data["buckets"]]
                histogram.add_metric([worker], [*buckets, ("+Inf", float(data["count"]))], float(data["sum"]))
            return histogram
        family = (CounterMetricFamily if row.kind == "counter" else GaugeMetricFamily)(
            row.name, row.help, labels=["worker"]
        )
        for worker, value in self._series(row, f"{row.kind}s"):
            family.add_metric([worker], float(value))
        return family

    def _series(self, row: MetricRow, group: str) -> Iterable[tuple[str, Any]]:
        for worker, snapshot in sorted(self._snapshots.items()):
            if row.name in snapshot.get(group, {}):
                yield worker, snapshot[group][row.name]
