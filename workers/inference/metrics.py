"""How one engine step shows in the metrics. Knows the names of the table, not who reads them."""

from headrace.telemetry.metrics import Recorder
from workers.inference.messages import StepStats


def record_step(metrics: Recorder, stats: StepStats) -> None:
    """Steps that decoded nothing leave no row in the histogram of decode rows."""
    if stats.decode_rows:
        metrics.observe("headrace_engine_decode_rows", stats.decode_rows)
    metrics.observe("headrace_engine_step_seconds", stats.seconds)
    metrics.add("headrace_engine_prefill_tokens_total", stats.prefill_tokens)
    metrics.add("headrace_engine_decoded_tokens_total", stats.decoded_tokens)
    metrics.add("headrace_engine_preemptions_total", stats.preemptions)
    metrics.set("headrace_engine_running", stats.running)
    metrics.set("headrace_engine_waiting", stats.waiting)
    metrics.set("headrace_engine_kv_pages_used", stats.kv_pages_used)
    metrics.set("headrace_engine_kv_pages", stats.kv_pages)
