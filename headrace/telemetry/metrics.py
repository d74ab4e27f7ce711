"""The one table of metrics, and the recorder by which a worker counts. Knows names, not where facts arise.

A worker puts its snapshot into its beat; the gateway's `/metrics` shows every worker's under a `worker` label, beside
what that gateway counts itself and what it reads from the store while it is asked.
"""

import bisect
import itertools
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

STEP = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
SECONDS = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)
LONG = (*SECONDS, 900.0, 3600.0)
TOKEN = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1.0, 2.5)
ROWS = (1.0, 2.0, 4.0, 8.0, 16.0, 24.0, 32.0, 48.0, 64.0)

LANE = ("lane", "class")
TENANT = ("lane", "tenant", "class")


@dataclass(frozen=True, slots=True)
class MetricRow:
    """One row of the table. Counters end in `_total`; buckets are upper bounds, ascending, without +Inf.

    `of` says who sets it: a `worker` (shown with that label besides), a `gateway` of itself, or the `fleet` (read from
    the store while `/metrics` is answered, so every gateway says the same).
    """

    of: Literal["worker", "gateway", "fleet"]
    name: str
    kind: Literal["counter", "gauge", "histogram"]
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()


_TABLE = (
    # The engine, by step.
    MetricRow(
        "worker", "headrace_engine_batch_requests", "histogram", "Requests that got a share of a step.", (), ROWS
    ),
    MetricRow("worker", "headrace_engine_decode_rows", "histogram", "Rows that decoded a token, by step.", (), ROWS),
    MetricRow("worker", "headrace_engine_step_seconds", "histogram", "Duration of an engine step.", (), STEP),
    MetricRow("worker", "headrace_engine_prefill_tokens_total", "counter", "Prompt tokens computed."),
    MetricRow(
        "worker",
        "headrace_engine_prefix_hit_tokens_total",
        "counter",
        "Prompt tokens found in the prefix cache.",
    ),
    MetricRow("worker", "headrace_engine_decoded_tokens_total", "counter", "Tokens sampled."),
    MetricRow("worker", "headrace_engine_running", "gauge", "Requests in the running state."),
    MetricRow("worker", "headrace_engine_waiting", "gauge", "Requests in the waiting state."),
    MetricRow("worker", "headrace_engine_kv_pages_used", "gauge", "KV cache pages in use."),
    MetricRow("worker", "headrace_engine_kv_pages", "gauge", "KV cache pages in all."),
    MetricRow(
        "worker", "headrace_engine_preemptions_total", "counter", "Requests sent back to waiting for want of pages."
    ),
    # Jobs on a worker.
    MetricRow(
        "worker",
        "headrace_job_queue_seconds",
        "histogram",
        "Queue age: from queued to claimed, of each attempt.",
        LANE,
        LONG,
    ),
    MetricRow(
        "worker",
        "headrace_job_first_token_seconds",
        "histogram",
        "TTFT: from accept to the first token, whichever attempt brought it.",
        LANE,
        SECONDS,
    ),
    MetricRow(
        "worker", "headrace_job_token_seconds", "histogram", "TPOT: time for each token after the first.", LANE, TOKEN
    ),
    MetricRow(
        "worker",
        "headrace_job_seconds",
        "histogram",
        "Time from accept to the end, of jobs that succeeded.",
        LANE,
        LONG,
    ),
    MetricRow("worker", "headrace_job_tokens_in_total", "counter", "Prompt tokens of jobs that were answered.", TENANT),
    MetricRow("worker", "headrace_job_tokens_out_total", "counter", "Tokens delivered, each once.", TENANT),
    MetricRow("worker", "headrace_jobs_ended_total", "counter", "Jobs that ended here, by state.", (*LANE, "state")),
    MetricRow("worker", "headrace_jobs_retried_total", "counter", "Counted errors, by code.", (*LANE, "code")),
    MetricRow("worker", "headrace_jobs_left_total", "counter", "Attempts that ended without the job.", ("why",)),
    MetricRow("worker", "headrace_jobs_reaped_total", "counter", "Jobs moved by this worker's reaper.", ("outcome",)),
    # The worker itself.
    MetricRow("worker", "headrace_worker_jobs_held", "gauge", "Jobs this worker holds a lease on."),
    MetricRow("worker", "headrace_worker_jobs_claimed_total", "counter", "Jobs claimed."),
    MetricRow("worker", "headrace_worker_leases_lost_total", "counter", "Leases that turned out to be another's."),
    MetricRow(
        "worker", "headrace_worker_engine_deaths_total", "counter", "Engine processes that died or were killed hung."
    ),
    MetricRow(
        "worker",
        "headrace_worker_append_seconds",
        "histogram",
        "Duration of one pipeline of appends to journals.",
        (),
        STEP,
    ),
    MetricRow("worker", "headrace_worker_store_outages_total", "counter", "Outages of the store that a beat ran into."),
    MetricRow(
        "worker", "headrace_worker_diverged_total", "counter", "Repeated deltas with other ids than before: an alarm."
    ),
    # A gateway itself.
    MetricRow(
        "gateway",
        "headrace_gateway_requests_total",
        "counter",
        "HTTP requests answered and WebSockets closed (as 101, or with the status of the error that ended it); "
        "status 0 is a client that left before one was chosen.",
        ("route", "method", "status"),
    ),
    MetricRow(
        "gateway",
        "headrace_gateway_request_seconds",
        "histogram",
        "Time from a request to the end of its reply, streams included.",
        ("route",),
        SECONDS,
    ),
    MetricRow(
        "gateway",
        "headrace_gateway_first_token_seconds",
        "histogram",
        "Time from submit to the first text of an OpenAI route.",
        (),
        SECONDS,
    ),
    MetricRow("gateway", "headrace_gateway_open_requests", "gauge", "Requests being answered now."),
    MetricRow("gateway", "headrace_gateway_open_websockets", "gauge", "WebSockets open now."),
    MetricRow(
        "gateway",
        "headrace_gateway_jobs_accepted_total",
        "counter",
        "Jobs accepted, replays not counted.",
        ("kind", *LANE),
    ),
    MetricRow("gateway", "headrace_gateway_refusals_total", "counter", "Errors answered, by code.", ("code",)),
    MetricRow("gateway", "headrace_gateway_events_sent_total", "counter", "Job events handed to readers."),
    MetricRow(
        "gateway", "headrace_gateway_jobs_reaped_total", "counter", "Jobs moved by this gateway's reaper.", ("outcome",)
    ),
    MetricRow("gateway", "headrace_gateway_store_up", "gauge", "1 when the last look at the store succeeded."),
    # The fleet, as the store has it at this moment.
    MetricRow("fleet", "headrace_queue_jobs", "gauge", "Jobs ready to be claimed.", LANE),
    MetricRow("fleet", "headrace_queue_oldest_seconds", "gauge", "Age since accept of the oldest ready job.", LANE),
    MetricRow("fleet", "headrace_dead_jobs", "gauge", "Dead jobs that wait for a person.", ("lane",)),
    MetricRow("fleet", "headrace_fleet_workers", "gauge", "Workers that beat.", ("lane", "state")),
    MetricRow("fleet", "headrace_fleet_kv_tokens", "gauge", "KV budget of the workers, in tokens.", ("lane",)),
)

METRICS: Mapping[str, MetricRow] = {row.name: row for row in _TABLE}
WORKER_METRICS: Mapping[str, MetricRow] = {row.name: row for row in _TABLE if row.of == "worker"}

Labels = tuple[str, ...]
"""Values of a row's labels, in its order."""


class Recorder:
    """Counts for one process. Safe to call from any thread; an unknown name is a KeyError, not a new metric.

    A ValueError says that there was not one value for each label of the row.
    """

    def __init__(self, table: Mapping[str, MetricRow] = WORKER_METRICS) -> None:
        self._table = table
        self._lock = threading.Lock()
        # What has no labels is shown from the first beat on, so that a rate has something to rise from.
        self._values: dict[str, dict[Labels, float]] = {
            row.name: {} if row.labels else {(): 0.0} for row in table.values() if row.kind != "histogram"
        }
        self._histograms: dict[str, dict[Labels, _Histogram]] = {
            row.name: {} if row.labels else {(): _Histogram(row.buckets)}
            for row in table.values()
            if row.kind == "histogram"
        }

    def add(self, name: str, by: float = 1.0, labels: Labels = ()) -> None:
        with self._lock:
            series = self._values[name]
            self._check(name, labels, series)
            series[labels] = series.get(labels, 0.0) + by

    def set(self, name: str, value: float, labels: Labels = ()) -> None:
        with self._lock:
            series = self._values[name]
            self._check(name, labels, series)
            series[labels] = value

    def observe(self, name: str, value: float, labels: Labels = ()) -> None:
        with self._lock:
            series = self._histograms[name]
            self._check(name, labels, series)
            if labels not in series:
                series[labels] = _Histogram(self._table[name].buckets)
            series[labels].observe(value)

    def snapshot(self) -> dict[str, Any]:
        """Everything as JSON, small enough for a beat each second.

        Without labels: `{counters: {name: value}, gauges: …, histograms: {name: {buckets, sum, count}}}`, where buckets
        are pairs of upper bound and cumulative count. Series with labels stand under `labelled`, once they have been
        touched: `{strings: […], values: {name: [[string, …, value], …]}, histograms: {name: {bounds: […], series:
        [[string, …, [count of each bucket and of what is above], sum], …]}}}`; a string is a position in `strings`.
        """
        with self._lock:
            plain: dict[str, dict[str, Any]] = {"counters": {}, "gauges": {}, "histograms": {}}
            strings: dict[str, int] = {}

            def at(labels: Labels) -> list[Any]:
                return [strings.setdefault(label, len(strings)) for label in labels]

            values, histograms = {}, {}
            for name, numbers in self._values.items():
                if () in numbers:
                    plain[f"{self._table[name].kind}s"][name] = numbers[()]
                elif numbers:
                    values[name] = [[*at(labels), number] for labels, number in numbers.items()]
            for name, series in self._histograms.items():
                if () in series:
                    plain["histograms"][name] = series[()].cumulative()
                elif series:
                    rows = [[*at(labels), list(one.counts), round(one.sum, 6)] for labels, one in series.items()]
                    histograms[name] = {"bounds": list(self._table[name].buckets), "series": rows}
            return {**plain, "labelled": {"strings": list(strings), "values": values, "histograms": histograms}}

    def _check(self, name: str, labels: Labels, series: Mapping[Labels, object]) -> None:
        if labels not in series and len(labels) != len(self._table[name].labels):
            raise ValueError(f"{name} has the labels {self._table[name].labels}, not {len(labels)} of them")


class _Histogram:
    """Counts of one series, by bucket; the last is of what is above every bound."""

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float) -> None:
        self.counts[bisect.bisect_left(self._bounds, value)] += 1
        self.sum += value

    def cumulative(self) -> dict[str, Any]:
        *below, count = itertools.accumulate(self.counts)
        buckets = [[bound, seen] for bound, seen in zip(self._bounds, below, strict=True)]
        return {"buckets": buckets, "sum": self.sum, "count": count}
