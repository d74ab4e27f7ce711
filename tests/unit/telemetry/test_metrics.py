"""Metrics: what a worker records is what the gateway's page shows. Knows no process."""

import json
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from gateway.metrics import GatewayMetrics, fleet_families
from headrace.contract.job import JobClass
from headrace.store.beats import Beat
from headrace.store.lanes import Lanes, Waiting
from headrace.telemetry.exposition import workers_text
from headrace.telemetry.metrics import METRICS, ROWS, Recorder

LANE = "tiny@stable"
OLD_SNAPSHOT = {
    "counters": {"headrace_engine_decoded_tokens_total": 7.0, "headrace_worker_jobs_finished_total": 1.0},
    "gauges": {"headrace_engine_running": 2.0},
    "histograms": {"headrace_engine_step_seconds": {"buckets": [[0.005, 1], [30.0, 3]], "sum": 1.5, "count": 4}},
}
"""As a worker of the version before labels put it into its beat."""


def sent(recorder: Recorder) -> dict[str, Any]:
    """A snapshot as it comes out of a beat."""
    return dict(json.loads(json.dumps(recorder.snapshot())))


def samples(text: str) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """Every sample of a page, as Prometheus' own parser reads it."""
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def value(text: str, name: str, **labels: str) -> float:
    return samples(text)[name, frozenset(labels.items())]


def test_a_step_of_32_rows_shows_in_its_bucket_and_above() -> None:
    recorder = Recorder()
    for rows in (1, 32, 32, 100):
        recorder.observe("headrace_engine_decode_rows", rows)
    text = workers_text({"w_1": sent(recorder)})
    shown = [
        value(text, "headrace_engine_decode_rows_bucket", le=str(bound), worker="w_1") for bound in (*ROWS, "+Inf")
    ]
    assert shown == [1, 1, 1, 1, 1, 1, 3, 3, 3, 4]
    assert value(text, "headrace_engine_decode_rows_sum", worker="w_1") == 165
    assert value(text, "headrace_engine_decode_rows_count", worker="w_1") == 4


def test_counters_and_gauges_carry_the_worker_and_start_at_zero() -> None:
    recorder = Recorder()
    recorder.add("headrace_worker_jobs_claimed_total", 3)
    recorder.set("headrace_engine_running", 7)
    text = workers_text({"w_a": sent(recorder), "w_b": sent(Recorder())})
    assert value(text, "headrace_worker_jobs_claimed_total", worker="w_a") == 3
    assert value(text, "headrace_engine_running", worker="w_a") == 7
    assert value(text, "headrace_engine_running", worker="w_b") == 0


def test_series_with_labels_are_shown_once_they_were_touched() -> None:
    recorder = Recorder()
    for by, tenant in ((5, "acme"), (2, 'qu"ote\\d\n'), (1, "acme")):
        recorder.add("headrace_job_tokens_out_total", by, (LANE, tenant, "batch"))
    recorder.observe("headrace_job_first_token_seconds", 0.2, (LANE, "batch"))
    recorder.observe("headrace_job_first_token_seconds", 400.0, (LANE, "batch"))
    text = workers_text({"w_1": sent(recorder)})
    labels = {"lane": LANE, "class": "batch", "worker": "w_1"}
    assert value(text, "headrace_job_tokens_out_total", tenant="acme", **labels) == 6
    assert value(text, "headrace_job_tokens_out_total", tenant='qu"ote\\d\n', **labels) == 2
    name = "headrace_job_first_token_seconds"
    assert value(text, f"{name}_bucket", le="0.1", **labels) == 0
    assert value(text, f"{name}_bucket", le="0.25", **labels) == 1
    assert value(text, f"{name}_bucket", le="300.0", **labels) == 1
    assert value(text, f"{name}_bucket", le="+Inf", **labels) == value(text, f"{name}_count", **labels) == 2
    assert value(text, f"{name}_sum", **labels) == pytest.approx(400.2)
    assert not [key for key, _ in samples(text) if key.startswith("headrace_job_queue_seconds")]


def test_a_worker_of_the_version_before_labels_is_shown_beside_a_new_one() -> None:
    recorder = Recorder()
    recorder.add("headrace_engine_decoded_tokens_total", 9)
    text = workers_text({"w_old": OLD_SNAPSHOT, "w_new": sent(recorder)})
    assert value(text, "headrace_engine_decoded_tokens_total", worker="w_old") == 7
    assert value(text, "headrace_engine_decoded_tokens_total", worker="w_new") == 9
    assert value(text, "headrace_engine_step_seconds_bucket", le="30.0", worker="w_old") == 3
    assert value(text, "headrace_engine_step_seconds_bucket", le="+Inf", worker="w_old") == 4
    assert "jobs_finished" not in text


@pytest.mark.parametrize(
    "broken",
    [
        {"counters": {"headrace_engine_running": "many"}, "gauges": {"headrace_engine_running": "many"}},
        {"labelled": {"strings": [], "values": {"headrace_jobs_left_total": [[3, 1.0]]}}},
        {"labelled": {"strings": ["a"], "values": {"headrace_jobs_ended_total": [[0, 1.0]]}}},
        {"labelled": {"strings": ["a"], "histograms": {"headrace_job_seconds": {}}}},
        {"histograms": {"headrace_engine_step_seconds": None}},
    ],
)
def test_what_is_not_as_the_table_has_it_costs_only_its_own_lines(broken: dict[str, Any]) -> None:
    text = workers_text({"w_broken": broken, "w_fine": sent(Recorder())})
    assert value(text, "headrace_engine_running", worker="w_fine") == 0
    assert not [labels for _, labels in samples(text) if ("worker", "w_broken") in labels]


def test_an_unknown_name_is_refused_when_recorded_and_left_out_when_shown() -> None:
    with pytest.raises(KeyError):
        Recorder().add("headrace_misspelt_total")
    assert "misspelt" not in workers_text({"w_1": {"counters": {"headrace_misspelt_total": 1}}})


def test_a_label_that_is_missing_is_refused() -> None:
    for labels in ((), (LANE,), (LANE, "batch", "more")):
        with pytest.raises(ValueError):
            Recorder().observe("headrace_job_seconds", 1.0, labels)


def test_the_whole_page_is_what_prometheus_reads() -> None:
    metrics = GatewayMetrics()
    metrics.jobs.labels("chat", LANE, "interactive").inc()
    recorder = Recorder()
    recorder.add("headrace_jobs_ended_total", 2, (LANE, "batch", "dead"))
    beats = (Beat("w_1", LANE, "ready", capacity=4096), Beat("w_2", LANE, "ready", capacity=1000))
    lanes = Lanes((Waiting(LANE, JobClass.BATCH, 12, 34.5),), ((LANE, 3),))
    text = metrics.text({"w_1": sent(recorder)}, fleet_families(beats, lanes)).decode()
    families = {family.name: family.type for family in text_string_to_metric_families(text)}
    assert {row.name.removesuffix("_total"): row.kind for row in METRICS.values()} == {
        name: kind for name, kind in families.items() if not name.endswith("_created")
    }
    kind = {"lane": LANE, "class": "interactive", "kind": "chat"}
    assert value(text, "headrace_gateway_jobs_accepted_total", **kind) == 1
    assert value(text, "headrace_queue_jobs", **{"lane": LANE, "class": "batch"}) == 12
    assert value(text, "headrace_queue_oldest_seconds", **{"lane": LANE, "class": "batch"}) == 34.5
    assert value(text, "headrace_dead_jobs", lane=LANE) == 3
    assert value(text, "headrace_fleet_workers", lane=LANE, state="ready") == 2
    assert value(text, "headrace_fleet_kv_tokens", lane=LANE) == 5096


def test_names_follow_the_conventions() -> None:
    for row in METRICS.values():
        assert row.name.startswith("headrace_")
        assert row.name.endswith("_total") == (row.kind == "counter")
        assert bool(row.buckets) == (row.kind == "histogram")
        assert list(row.buckets) == sorted(row.buckets)
        assert row.help.endswith(".")
        assert not {"worker", "le"} & set(row.labels)
