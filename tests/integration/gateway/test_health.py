"""Health, metrics, and a store that goes away and comes back."""

import json
import re
import threading
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest
import redis
from openai import InternalServerError, OpenAI

from headrace.store.beats import Beat, write_beat
from headrace.store.connection import connect
from headrace.telemetry.metrics import Recorder
from tests.integration.gateway.scripted_worker import LANE, MODEL, ScriptedWorker, wait_for
from tests.integration.gateway.serving import serving, settings_for
from tests.integration.gateway.sse_reader import each, follow, text_of
from tests.redis_server import RedisServer, running_redis

JOB: dict[str, Any] = {"model": MODEL, "prompt": "go", "max_tokens": 50}


@pytest.fixture
def fragile() -> Iterator[RedisServer]:
    """A server of its own, for tests that take it away."""
    with running_redis() as server:
        yield server


def test_live_and_ready_without_any_worker(client: httpx2.Client) -> None:
    assert client.get("/health/live").json() == {"status": "live"}
    assert client.get("/health/ready").json() == {"status": "ready"}
    assert client.get("/health/fleet").json() == {"status": "no_workers", "workers": []}


def test_the_fleet_is_what_its_beats_say(client: httpx2.Client, store: redis.Redis) -> None:
    write_beat(store, Beat("w_b", LANE, "idle", capacity=2048))
    write_beat(store, Beat("w_a", LANE, "running", "rev", "dig", 4096, 3, 12))
    fleet = client.get("/health/fleet").json()
    assert fleet["status"] == "ok"
    first, second = fleet["workers"]
    assert first.pop("at") > 1_600_000_000_000
    assert first == {
        "id": "w_a",
        "lane": LANE,
        "state": "running",
        "revision": "rev",
        "digest": "dig",
        "capacity": 4096,
        "held": 3,
        "step_age_ms": 12,
    }
    assert (second["id"], second["step_age_ms"]) == ("w_b", None)


def test_metrics_show_every_worker_under_its_name(client: httpx2.Client, store: redis.Redis) -> None:
    for name, rows in (("w_a", (3, 32)), ("w_b", (1,))):
        recorder = Recorder()
        for row in rows:
            recorder.observe("headrace_engine_decode_rows", row)
        write_beat(store, Beat(name, LANE, "running", metrics=recorder.snapshot()))
    reply = client.get("/metrics")
    lines = reply.text.splitlines()
    assert reply.headers["content-type"].startswith("text/plain")
    assert 'headrace_engine_decode_rows_bucket{le="32.0",worker="w_a"} 2.0' in lines
    assert 'headrace_engine_decode_rows_bucket{le="24.0",worker="w_a"} 1.0' in lines
    assert 'headrace_engine_decode_rows_count{worker="w_b"} 1.0' in lines
    assert "headrace_gateway_store_up 1.0" in lines


def test_metrics_count_requests_by_route_and_not_by_path(client: httpx2.Client) -> None:
    client.get("/v1/jobs/nonsense-1")
    client.get("/v1/jobs/nonsense-2")
    text = client.get("/metrics").text
    assert 'headrace_gateway_requests_total{method="GET",route="/v1/jobs/{job_id}",status="404"}' in text
    assert "nonsense" not in text


def test_a_store_that_would_drop_keys_is_not_ready(client: httpx2.Client, store: redis.Redis) -> None:
    store.config_set("maxmemory-policy", "allkeys-lru")
    try:
        reply = client.get("/health/ready")
    finally:
        store.config_set("maxmemory-policy", "noeviction")
    assert (reply.status_code, reply.json()["error"]["code"]) == (503, "store_unavailable")
    assert "allkeys-lru" in reply.json()["error"]["message"]
    assert client.get("/health/ready").status_code == 200


def test_a_full_store_is_not_ready_and_says_so_to_submitters(client: httpx2.Client, store: redis.Redis) -> None:
    store.config_set("maxmemory", "1")
    try:
        assert client.get("/health/ready").status_code == 503
        reply = client.post("/v1/jobs", json=JOB)
    finally:
        store.config_set("maxmemory", "0")
    assert (reply.status_code, reply.json()["error"]["code"]) == (503, "store_unavailable")
    assert int(reply.headers["retry-after"]) >= 1
    assert client.post("/v1/jobs", json=JOB).status_code == 202


def test_an_outage_is_a_503_on_every_route_and_passes_by_itself(fragile: RedisServer) -> None:
    with (
        serving(settings_for(fragile.url)) as gateway,
        httpx2.Client(base_url=gateway.url, timeout=20) as client,
        connect(fragile.url) as store,
    ):
        worker = ScriptedWorker(store)
        worker.announce()
        job_id = client.post("/v1/jobs", json=JOB).json()["id"]
        fragile.kill()
        calls: list[tuple[str, str, Any]] = [
            ("GET", "/health/ready", None),
            ("GET", "/health/fleet", None),
            ("GET", f"/v1/jobs/{job_id}", None),
            ("DELETE", f"/v1/jobs/{job_id}", None),
            ("GET", f"/v1/jobs/{job_id}/events", None),
            ("POST", "/v1/jobs", JOB),
            ("POST", "/v1/completions", JOB),
        ]
        for method, path, body in calls:
            reply = client.request(method, path, json=body)
            assert (reply.status_code, reply.json()["error"]["code"]) == (503, "store_unavailable"), path
            assert int(reply.headers["retry-after"]) >= 1
        assert client.get("/health/live").status_code == 200
        assert "headrace_gateway_store_up 0.0" in client.get("/metrics").text
        fragile.start()
        wait_for(lambda: client.get("/health/ready").status_code == 200)
        worker.run("still here")
        assert text_of(follow(client, job_id)) == "still here"


def test_a_stream_lives_through_an_outage(fragile: RedisServer) -> None:
    with (
        serving(settings_for(fragile.url)) as gateway,
        httpx2.Client(base_url=gateway.url, timeout=20) as client,
        connect(fragile.url) as store,
    ):
        worker = ScriptedWorker(store)
        worker.announce()
        job_id = client.post("/v1/jobs", json=JOB).json()["id"]
        job = worker.claim()
        worker.say(job, "before, ")
        found: list[Any] = []
        reader = threading.Thread(target=lambda: found.extend(each(client, job_id)), daemon=True)
        reader.start()
        wait_for(lambda: text_of(found) == "before, ")
        fragile.restart()
        worker.say(job, "after", "stop")
        worker.succeed(job)
        reader.join(15)
        assert text_of(found) == "before, after"
        assert [message.data["seq"] for message in found] == [1, 2, 3, 4, 5]


def test_the_official_client_sees_an_outage_as_an_error(fragile: RedisServer) -> None:
    with serving(settings_for(fragile.url)) as gateway:
        fragile.kill()
        with OpenAI(base_url=f"{gateway.url}/v1", api_key="x", max_retries=0) as openai:
            with pytest.raises(InternalServerError) as caught:
                openai.models.list()
            assert (caught.value.status_code, caught.value.code) == (503, "store_unavailable")


def test_the_openapi_document_describes_every_body(client: httpx2.Client) -> None:
    text = client.get("/openapi.json").text
    document = json.loads(text)
    assert "/v1/jobs/{job_id}/events" in document["paths"]
    for path in ("/v1/jobs", "/v1/completions", "/v1/chat/completions"):
        assert "requestBody" in document["paths"][path]["post"]
    referred = set(re.findall(r'"\$ref":"#/components/schemas/(\w+)"', text))
    assert referred >= {"ChatBody", "CompletionBody", "JobBody", "Message"}
    assert referred <= set(document["components"]["schemas"])
    described = {parameter["name"] for parameter in document["paths"]["/v1/jobs"]["get"]["parameters"]}
    assert described >= {"limit", "after", "before", "state", "created_after", "metadata[<name>]"}
    assert "/v1/jobs/{job_id}/ws" in document["paths"]
