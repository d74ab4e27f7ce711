"""The page that Prometheus scrapes: what waits in the store, what was counted here, and a fleet of fifty workers."""

from typing import Any

import httpx2
import redis
from prometheus_client.parser import text_string_to_metric_families

from headrace.contract.errors import ErrorInfo
from headrace.store.beats import Beat, write_beat
from headrace.telemetry.metrics import Recorder
from tests.integration.gateway.scripted_worker import LANE, MODEL, ScriptedWorker, wait_for
from tests.integration.gateway.sse_reader import follow

JOB: dict[str, Any] = {"model": MODEL, "prompt": "go", "max_tokens": 50}


def scrape(client: httpx2.Client) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    reply = client.get("/metrics")
    assert reply.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(reply.text)
        for sample in family.samples
    }


def series(page: dict[Any, float], name: str, **labels: str) -> float:
    return page.get((name, frozenset(labels.items())), 0.0)


def test_what_waits_is_read_from_the_store_by_lane_and_class(client: httpx2.Client, store: redis.Redis) -> None:
    for _ in range(3):
        assert client.post("/v1/jobs", json={**JOB, "class": "batch"}).status_code == 202
    oldest: Any = store.zrange(f"hr:lane:{LANE}:batch", 0, 0)
    store.hincrby(f"hr:job:{oldest[0].decode()}", "created_at", -60_000)
    store.zadd(f"hr:dlq:{LANE}", {"job_dead": 1})
    page = scrape(client)
    batch = {"lane": LANE, "class": "batch"}
    assert series(page, "headrace_queue_jobs", **batch) == 3
    assert 60 <= series(page, "headrace_queue_oldest_seconds", **batch) < 90
    assert page["headrace_queue_jobs", frozenset({("lane", LANE), ("class", "interactive")})] == 0
    assert series(page, "headrace_dead_jobs", lane=LANE) == 1


def test_what_comes_in_and_goes_out_is_counted(client: httpx2.Client, worker: ScriptedWorker) -> None:
    accepted = {"kind": "completion", "lane": LANE, "class": "standard"}
    before = scrape(client)
    job_id = client.post("/v1/jobs", json=JOB).json()["id"]
    worker.run("one", "two")
    events = follow(client, job_id)
    assert client.post("/v1/jobs", json={**JOB, "model": "no-such-model"}).status_code == 404
    after = scrape(client)

    def grown(name: str, **labels: str) -> float:
        return series(after, name, **labels) - series(before, name, **labels)

    assert grown("headrace_gateway_jobs_accepted_total", **accepted) == 1
    assert grown("headrace_gateway_refusals_total", code="model_not_found") == 1
    assert grown("headrace_gateway_events_sent_total") == len(list(events)) == 5


def test_a_reaped_job_is_counted_by_what_became_of_it(client: httpx2.Client, worker: ScriptedWorker) -> None:
    before = series(scrape(client), "headrace_gateway_jobs_reaped_total", outcome="requeued")
    client.post("/v1/jobs", json=JOB)
    job = worker.claim()
    worker.queue.retry(job.lease, 1, ErrorInfo("engine_error", "Once more.", retryable=True))
    worker.claim()
    wait_for(lambda: series(scrape(client), "headrace_gateway_jobs_reaped_total", outcome="requeued") == before + 1)


def test_fifty_workers_are_on_one_page(client: httpx2.Client, store: redis.Redis) -> None:
    recorder = Recorder()
    for job_class in ("interactive", "standard", "batch", "background"):
        recorder.observe("headrace_job_first_token_seconds", 0.3, (LANE, job_class))
    for number in range(50):
        write_beat(store, Beat(f"w_{number}", LANE, "ready", capacity=100, metrics=recorder.snapshot()))
    page = scrape(client)
    labels = {"lane": LANE, "class": "batch", "worker": "w_49"}
    assert series(page, "headrace_job_first_token_seconds_count", **labels) == 1
    assert series(page, "headrace_fleet_workers", lane=LANE, state="ready") == 50
    assert series(page, "headrace_fleet_kv_tokens", lane=LANE) == 5000
