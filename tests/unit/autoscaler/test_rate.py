"""Tokens per second from counters: only what was computed counts, and the newest counts most."""

from typing import Any

import pytest

from headrace.autoscaler.rate import MovingRate
from headrace.telemetry.metrics import Recorder


def snapshot(prefilled: float, decoded: float, seconds: float) -> dict[str, Any]:
    """What a worker puts into its beat after one step of so many seconds."""
    recorder = Recorder()
    recorder.add("headrace_engine_prefill_tokens_total", prefilled)
    recorder.add("headrace_engine_decoded_tokens_total", decoded)
    recorder.observe("headrace_engine_step_seconds", seconds)
    return recorder.snapshot()


def test_none_before_anything_was_computed() -> None:
    rate = MovingRate()
    rate.add({"a": snapshot(0, 0, 0)})
    rate.add({"a": {}})
    assert rate.per_second is None


def test_tokens_by_seconds_of_computing_of_each_worker() -> None:
    rate = MovingRate()
    rate.add({"a": snapshot(100, 100, 1), "b": snapshot(0, 400, 2)})
    assert rate.per_second == pytest.approx(200)


def test_idle_time_changes_nothing() -> None:
    rate = MovingRate()
    for _ in range(50):
        rate.add({"a": snapshot(100, 100, 1)})
    assert rate.per_second == pytest.approx(200)


def test_it_moves() -> None:
    rate = MovingRate()
    rate.add({"a": snapshot(0, 1000, 10)})
    for second in range(1, 60):
        rate.add({"a": snapshot(0, 1000 + 500 * second, 10 + second)})
    assert rate.per_second == pytest.approx(500, rel=0.1)


def test_a_worker_that_left_takes_nothing_with_it() -> None:
    rate = MovingRate()
    rate.add({"a": snapshot(0, 300, 1)})
    rate.add({})
    rate.add({"b": snapshot(0, 300, 1)})
    assert rate.per_second == pytest.approx(300)
