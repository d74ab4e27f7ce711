"""How an engine step and a reap show in the metrics, and how fast the engine was by them. Knows names of the table."""

from headrace.queue.base import ReapReply
from headrace.telemetry.metrics import Recorder
from workers.inference.messages import StepStats

MEASURED_STEPS = 100
"""Fewer say more of how an engine warms up than of its speed."""


def record_step(metrics: Recorder, stats: StepStats) -> None:
    """Steps that decoded nothing leave no row in the histogram of decode rows, and what was no step none at all."""
    if stats.scheduled:
        metrics.observe("headrace_engine_batch_requests", len(stats.scheduled))
        metrics.observe("headrace_engine_step_seconds", stats.seconds)
    if stats.decode_rows:
        metrics.observe("headrace_engine_decode_rows", stats.decode_rows)
    metrics.add("headrace_engine_prefill_tokens_total", stats.prefill_tokens)
    metrics.add("headrace_engine_prefix_hit_tokens_total", stats.cached_tokens)
    metrics.add("headrace_engine_decoded_tokens_total", stats.decoded_tokens)
    metrics.add("headrace_engine_preemptions_total", stats.preemptions)
    metrics.set("headrace_engine_running", stats.running)
    metrics.set("headrace_engine_waiting", stats.waiting)
    metrics.set("headrace_engine_kv_pages_used", stats.kv_pages_used)
    metrics.set("headrace_engine_kv_pages", stats.kv_pages)


def tokens_per_second(metrics: Recorder) -> float | None:
    """Tokens that all requests together got for each second of a step, since the worker started, steps that only
    prefilled included; None until enough steps ran."""
    seen = metrics.snapshot()
    steps = seen["histograms"]["headrace_engine_step_seconds"]
    if steps["count"] < MEASURED_STEPS or not steps["sum"]:
        return None
    decoded: float = seen["counters"]["headrace_engine_decoded_tokens_total"]
    return round(decoded / float(steps["sum"]), 1)


def record_reap(metrics: Recorder, reply: ReapReply) -> None:
    """What became of the jobs that nobody held any more."""
    for outcome, jobs in (("requeued", reply.requeued), ("expired", reply.expired), ("dead", reply.dead)):
        if jobs:
            metrics.add("headrace_jobs_reaped_total", len(jobs), (outcome,))
