"""Metrics: what a worker records is what the gateway's page shows. Knows no process."""

import json

import pytest

from headrace.telemetry.exposition import workers_text
from headrace.telemetry.metrics import METRICS, ROWS, Recorder


def page(**snapshots: dict[str, object]) -> str:
    return workers_text(snapshots)


def test_a_step_of_32_rows_shows_in_its_bucket_and_above() -> None:
    recorder = Recorder()
    for rows in (1, 32, 32, 100):
        recorder.observe("headrace_engine_decode_rows", rows)
    text = page(w_1=json.loads(json.dumps(recorder.snapshot())))
    shown = {
        bound: float(text.split(f'headrace_engine_decode_rows_bucket{{le="{bound}",worker="w_1"}} ')[1].split("\n")[0])
        for bound in (*ROWS, "+Inf")
    }
    assert (shown[1.0], shown[24.0], shown[32.0], shown[64.0], shown["+Inf"]) == (1, 1, 3, 3, 4)
    assert 'headrace_engine_decode_rows_sum{worker="w_1"} 165.0' in text


def test_counters_and_gauges_carry_the_worker() -> None:
    recorder = Recorder()
    recorder.add("headrace_worker_jobs_claimed_total", 3)
    recorder.set("headrace_engine_running", 7)
    text = page(w_a=recorder.snapshot(), w_b=Recorder().snapshot())
    assert 'headrace_worker_jobs_claimed_total{worker="w_a"} 3.0' in text
    assert 'headrace_engine_running{worker="w_b"} 0.0' in text


def test_an_unknown_name_is_refused_when_recorded_and_left_out_when_shown() -> None:
    with pytest.raises(KeyError):
        Recorder().add("headrace_misspelt_total")
    assert "misspelt" not in page(w_1={"counters": {"headrace_misspelt_total": 1}})


def test_names_follow_the_conventions() -> None:
    for row in METRICS.values():
        assert row.name.endswith("_total") == (row.kind == "counter")
        assert bool(row.buckets) == (row.kind == "histogram")
        assert list(row.buckets) == sorted(row.buckets)
