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
KILLED = "a" * 32
"""Trace of the job whose first worker is killed."""

SECRET = "the-prompt-nobody-may-see"


@dataclass(frozen=True)
class Stack:
    client: httpx2.Client
    store: redis.Redis
    collector: Collector

    def post(self, trace_id: str, path: str, max_tokens: int, *, flags: str = "01", **body: Any) -> httpx2.Response:
        """Ask for tokens in this trace, once there is a worker that has announced its model."""
        eventually(lambda: read_releases(self.store), "card")
        body |= {"model": "fake", "prompt": SECRET, "max_tokens": max_tokens}
        reply = self.client.post(path, json=body, headers={"traceparent": f"00-{trace_id}-{CLIENT_SPAN}-{flags}"})
        assert reply.status_code in (200, 202), reply.text
        return reply

    def spans(self, trace_id: str, name: str, count: int = 1) -> list[Seen]:
        """So many spans of this name, once they have come."""
        eventually(lambda: len(self.collector.of(trace_id, name)) >= count, f"{count} {name}", 20)
        return self.collector.of(trace_id, name)


@contextmanager
def worker(settings: Settings, speed: int) -> Iterator[subprocess.Popen[bytes]]:
    """A worker process on the fake engine; it drains when the block ends."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("HEADRACE_")}
    process = subprocess.Popen(
        [sys.executable, "-m", "workers", "--model", f"fake:speed={speed}"],
        cwd=ROOT,
        env=env | as_variables(settings),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield process
    finally:
        process.terminate()
        process.wait(20)


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    """Everything up. One worker was killed in the middle of a job, another has been there since."""
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
                stack = Stack(client, store, collector)
                kill_in_the_middle(stack, settings)
                with worker(settings, speed=200):
                    yield stack
        finally:
            server.stop()


def kill_in_the_middle(stack: Stack, settings: Settings) -> None:
    queue = RedisQueue(stack.store, settings.queue.timing())
    with worker(settings, speed=50) as victim:
        job_id = stack.post(KILLED, "/v1/jobs", 100).json()["id"]
        job = eventually(lambda: job if (job := queue.get(job_id)) and sum(job.next_offset) else None, "tokens")
        stack.spans(KILLED, "job.queue")
        os.kill(victim.pid, signal.SIGKILL)
        victim.wait(10)
    queue.reap(ReapRequest(worker=job.owner, died=True))


def test_one_trace_from_the_request_to_the_last_token(stack: Stack) -> None:
    trace_id = "4bf92f3577b34da6a3ce929d0e0e4736"
    assert stack.post(trace_id, "/v1/completions", 20, stream=True).text.endswith("[DONE]\n\n")
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
    (run,) = stack.spans(KILLED, "job.run")
    queues = stack.spans(KILLED, "job.queue", 2)
    (request,) = stack.spans(KILLED, "POST /v1/jobs")
    assert run.attributes["headrace.attempt"] == 2
    assert run.attributes["gen_ai.usage.output_tokens"] == 100
    assert run.attributes["headrace.attempt.output_tokens"] < 100
    assert run.events == ("resumed",)
    assert [span.attributes["headrace.attempt"] for span in queues] == [1, 2]
    assert {span.parent_id for span in (*queues, run)} == {request.span_id}


def test_a_trace_that_was_not_sampled_is_kept_nowhere_and_a_reader_of_its_own_is_linked(stack: Stack) -> None:
    unsampled, sampled, reader = "b" * 32, "c" * 32, "d" * 32
    headers = {"traceparent": f"00-{reader}-{CLIENT_SPAN}-01"}
    for trace_id, flags in ((unsampled, "00"), (sampled, "01")):
        job_id = stack.post(trace_id, "/v1/jobs", 5, flags=flags).json()["id"]
        assert "completed" in stack.client.get(f"/v1/jobs/{job_id}/events", headers=headers).text
    stack.spans(sampled, "job.run")
    streams = stack.spans(reader, "job.stream", 2)
    # The other job had ended before this one began, so its spans would have come before.
    assert stack.collector.of(unsampled) == []
    assert {link for span in streams for link in span.links} >= {sampled}
