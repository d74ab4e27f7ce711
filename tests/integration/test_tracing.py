"""One trace from the request to the last token: real gateway, real worker process, real Redis, OTLP over HTTP."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx2
import pytest
import redis

from headrace.queue.base import ReapRequest
from headrace.queue.redis import RedisQueue
from headrace.settings import GatewaySettings, QueueSettings, RedisSettings, Settings, TelemetrySettings, as_variables
from headrace.store.cards import read_releases
from headrace.store.connection import connect
from tests.integration.gateway.serving import serving
from tests.integration.trace_collector import Collector, Seen, collecting
from tests.integration.workers.fleet import eventually
from tests.redis_server import RedisServer

ROOT = Path(__file__).parents[2]
CLIENT_SPAN = "00f067aa0ba902b7"
SECRET = "the-prompt-nobody-may-see"


@dataclass(frozen=True)
class Stack:
    client: httpx2.Client
    store: redis.Redis
    collector: Collector
    settings: Settings

    @contextmanager
    def worker(self, speed: int = 200) -> Iterator[subprocess.Popen[bytes]]:
        """One worker process on the fake engine; it drains when the block ends."""
        env = {name: value for name, value in os.environ.items() if not name.startswith("HEADRACE_")}
        process = subprocess.Popen(
            [sys.executable, "-m", "workers", "--model", f"fake:speed={speed}"],
            cwd=ROOT,
            env=env | as_variables(self.settings),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            yield process
        finally:
            process.terminate()
            process.wait(20)

    def job(self, trace_id: str, max_tokens: int, flags: str = "01") -> str:
        """Submit in this trace, once there is a worker that has announced its model."""
        eventually(lambda: read_releases(self.store), "card")
        body = {"model": "fake", "prompt": SECRET, "max_tokens": max_tokens}
        headers = {"traceparent": f"00-{trace_id}-{CLIENT_SPAN}-{flags}"}
        reply = self.client.post("/v1/jobs", json=body, headers=headers)
        assert reply.status_code == 202, reply.text
        return str(reply.json()["id"])

    def spans(self, trace_id: str, name: str, count: int = 1) -> list[Seen]:
        """So many spans of this name, once they have come."""
        eventually(lambda: len(self.collector.of(trace_id, name)) >= count, f"{count} {name}", 20)
        return self.collector.of(trace_id, name)


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    with TemporaryDirectory(prefix="hr-") as folder, collecting() as (url, collector):
        server = RedisServer(Path(folder), fsync="everysec")
        server.start()
        settings = Settings.model_construct(
            redis=RedisSettings(url=server.url, connect_timeout_s=1, socket_timeout_s=2),
            queue=QueueSettings(beat_ms=100, reap_ms=100),
            gateway=GatewaySettings(port=0),
            telemetry=TelemetrySettings(otlp_endpoint=url),
        )
        try:
            with (
                serving(settings) as gateway,
                httpx2.Client(base_url=gateway.url, timeout=20) as client,
                connect(server.url) as store,
            ):
                yield Stack(client, store, collector, settings)
        finally:
            server.stop()


def test_one_trace_from_the_request_to_the_last_token(stack: Stack) -> None:
    trace_id = "4bf92f3577b34da6a3ce929d0e0e4736"
    body: dict[str, Any] = {"model": "fake", "prompt": SECRET, "max_tokens": 20, "stream": True}
    with stack.worker():
        eventually(lambda: read_releases(stack.store), "card")
        headers = {"traceparent": f"00-{trace_id}-{CLIENT_SPAN}-01"}
        assert stack.client.post("/v1/completions", json=body, headers=headers).text.endswith("[DONE]\n\n")
        (request,) = stack.spans(trace_id, "POST /v1/completions")
        (stream,) = stack.spans(trace_id, "job.stream")
        (queue,) = stack.spans(trace_id, "job.queue")
        (run,) = stack.spans(trace_id, "job.run")
    assert request.parent_id == CLIENT_SPAN
    assert {span.parent_id for span in (stream, queue, run)} == {request.span_id}
    assert (request.service, run.service) == ("headrace-gateway", "headrace-worker")
    assert request.attributes["http.response.status_code"] == 200
    assert run.events == ("started", "first_token")
    assert stream.events == ("first_token",)
    assert queue.end == run.start
    assert queue.start <= queue.end <= run.end
    assert run.attributes["gen_ai.request.model"] == "fake"
    assert run.attributes["gen_ai.usage.input_tokens"] == len(SECRET)
    assert run.attributes["gen_ai.usage.output_tokens"] == 20
    assert run.attributes["headrace.state"] == "succeeded"
    assert run.attributes["headrace.job.id"] == stream.attributes["headrace.job.id"]
    assert SECRET.encode() not in stack.collector.raw


def test_the_attempt_after_a_kill_is_in_the_same_trace(stack: Stack) -> None:
    trace_id = "a" * 32
    queue = RedisQueue(stack.store, QueueSettings().timing())
    with stack.worker(speed=50) as first:
        job_id = stack.job(trace_id, 100)
        running = eventually(lambda: job if (job := queue.get(job_id)) and sum(job.next_offset) else None, "tokens")
        (sent,) = stack.spans(trace_id, "job.queue")
        os.kill(first.pid, signal.SIGKILL)
        first.wait(10)
        queue.reap(ReapRequest(worker=running.owner, died=True))
        with stack.worker(speed=0):
            (run,) = stack.spans(trace_id, "job.run")
            queues = stack.spans(trace_id, "job.queue", 2)
    assert run.attributes["headrace.attempt"] == 2
    assert run.attributes["gen_ai.usage.output_tokens"] == 100
    assert run.attributes["headrace.attempt.output_tokens"] < 100
    assert run.events == ("resumed",)
    assert [span.attributes["headrace.attempt"] for span in queues] == [1, 2]
    assert {span.parent_id for span in (*queues, run)} == {sent.parent_id}


def test_a_trace_that_was_not_sampled_is_kept_nowhere_and_a_reader_of_its_own_is_linked(stack: Stack) -> None:
    unsampled, sampled, reader = "b" * 32, "c" * 32, "d" * 32
    with stack.worker(speed=0):
        jobs = [stack.job(unsampled, 5, flags="00"), stack.job(sampled, 5)]
        for job_id in jobs:
            headers = {"traceparent": f"00-{reader}-{CLIENT_SPAN}-01"}
            assert "completed" in stack.client.get(f"/v1/jobs/{job_id}/events", headers=headers).text
        stack.spans(sampled, "job.run")
        streams = stack.spans(reader, "job.stream", 2)
    # Its attempt ended before the other's, so its spans would have come with them.
    assert stack.collector.of(unsampled) == []
    assert {link for span in streams for link in span.links} >= {sampled}
