"""`python -m gateway` as a process: what it says of a bad start, how it waits for its store, and how it ends."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx2
import pytest
from openai import APIError, OpenAI

from headrace.contract.job import State
from tests.integration.gateway.scripted_worker import MODEL, ScriptedWorker, wait_for
from tests.redis_server import RedisServer

ROOT = Path(__file__).parents[3]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def environment(redis_url: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("HEADRACE_")}
    return {**kept, "HEADRACE_REDIS__URL": redis_url, "HEADRACE_GATEWAY__FIRST_EVENT_TIMEOUT_S": "0.3"}


def refused(redis_url: str, *arguments: str) -> str:
    """What a gateway that cannot start says. It must be one line, without a traceback, and exit 1."""
    command = [sys.executable, "-m", "gateway", *arguments]
    ended = subprocess.run(command, cwd=ROOT, env=environment(redis_url), capture_output=True, text=True, timeout=30)
    assert ended.returncode == 1, ended.stderr
    assert ended.stdout == ""
    (line,) = ended.stderr.splitlines()
    return line


@contextmanager
def running(redis_url: str, port: int) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "gateway", "--port", str(port)]
    process = subprocess.Popen(command, cwd=ROOT, env=environment(redis_url), stderr=subprocess.PIPE, text=True)
    try:
        wait_for(lambda: _answers(port), 20)
        yield process
    finally:
        process.kill()
        process.communicate()


def _answers(port: int) -> bool:
    try:
        return httpx2.get(f"http://127.0.0.1:{port}/health/live").status_code == 200
    except httpx2.TransportError:
        return False


def stopped(process: subprocess.Popen[str]) -> tuple[int, float, str]:
    """Exit status, seconds it took, and the log, after SIGTERM."""
    began = time.monotonic()
    process.send_signal(signal.SIGTERM)
    _, log = process.communicate(timeout=10)
    return process.returncode, time.monotonic() - began, log


def test_a_port_in_use_is_one_line(redis_server: RedisServer) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        line = refused(redis_server.url, "--port", str(port))
    assert f"Port {port} on 127.0.0.1 is in use." in line
    assert "--port" in line


@pytest.mark.parametrize(
    ("url", "said"),
    [("", "HEADRACE_REDIS__URL"), ("nonsense", "nonsense"), ("redis://127.0.0.1:notaport", "notaport")],
)
def test_a_redis_url_that_is_none_is_one_line(url: str, said: str) -> None:
    assert said in refused(url, "--port", "0")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--host", "256.1.1.1", "--port", "0"), "256.1.1.1"),
        (("--port", "70000"), "port"),
        (("--config", "no.yaml"), "no.yaml"),
    ],
)
def test_other_bad_settings_are_one_line(redis_server: RedisServer, arguments: tuple[str, ...], said: str) -> None:
    assert said in refused(redis_server.url, *arguments)


def test_it_starts_without_its_store_and_is_ready_when_that_comes() -> None:
    with TemporaryDirectory(prefix="hr-") as folder:
        store, port = RedisServer(Path(folder)), free_port()
        with running(store.url, port) as process, httpx2.Client(base_url=f"http://127.0.0.1:{port}") as client:
            assert client.get("/health/ready").status_code == 503
            store.start()
            try:
                wait_for(lambda: client.get("/health/ready").status_code == 200)
            finally:
                store.stop()
            assert client.get("/health/ready").status_code == 503
            status, seconds, log = stopped(process)
    assert (status, seconds < 5) == (0, True)
    assert "gateway.not_ready" in log
    assert "Traceback" not in log


def test_sigterm_ends_open_streams_and_leaves_the_jobs_that_can_be_asked_for(
    redis_server: RedisServer, worker: ScriptedWorker
) -> None:
    port = free_port()
    question: Any = [{"role": "user", "content": "hi"}]
    with (
        running(redis_server.url, port) as process,
        OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="x", max_retries=0) as openai,
        httpx2.Client(base_url=f"http://127.0.0.1:{port}") as client,
    ):
        job_id = client.post("/v1/jobs", json={"model": MODEL, "prompt": "go"}).json()["id"]
        with client.stream("GET", f"/v1/jobs/{job_id}/events") as events:
            lines = events.iter_lines()
            assert next(lines).startswith("id: ")
            worker.claim()
            chat = openai.chat.completions.create(model=MODEL, messages=question, stream=True)
            second = worker.claim()
            worker.say(second, "so far")
            text = next(chat).choices[0].delta.content or ""
            text += next(chat).choices[0].delta.content or ""
            status, seconds, log = stopped(process)
            with pytest.raises(APIError) as caught:
                list(chat)
            rest = list(lines)
    assert text == "so far"
    assert caught.value.code == "store_unavailable"
    assert "event: error" in rest
    assert (status, seconds < 5) == (0, True)
    assert "Traceback" not in log
    assert worker.state(job_id) is State.RUNNING
    assert worker.state(second.id) is State.CANCELLED, "nobody can ask for it again"
