"""`python -m workers` as a process: Celery's shell, signals, exit codes."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from headrace.contract.job import State
from headrace.settings import RedisSettings
from headrace.store.beats import read_beats
from tests.integration.workers.fleet import Fleet, eventually
from workers.celery_app import make_app


@contextmanager
def process(fleet: Fleet, model: str, *flags: str, redis_url: str = "") -> Iterator[subprocess.Popen[bytes]]:
    """One worker process, gone when the block ends."""
    command = [sys.executable, "-m", "workers", "--model", model, "--redis-url", redis_url or fleet.server.url, *flags]
    started = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL)
    try:
        yield started
    finally:
        started.kill()
        started.communicate()


def beating(fleet: Fleet, state: str = "ready") -> str:
    """The id of the worker once it beats in this state."""
    return eventually(lambda: next((b.worker for b in read_beats(fleet.client) if b.state == state), None), state)


def test_celery_finds_it_and_sigterm_gives_its_jobs_back(fleet: Fleet) -> None:
    with process(fleet, "fake:speed=20", "--tag", "abc") as worker:
        worker_id = beating(fleet)
        assert worker_id.endswith(f"_{worker.pid}_abc")
        app = make_app(RedisSettings(url=fleet.server.url))
        node = f"headrace@{worker_id}"
        # The engine may be ready before Celery listens.
        pong = eventually(lambda: app.control.ping(destination=[node], timeout=1.0, limit=1), "an answer")
        assert pong == [{node: {"ok": "pong"}}]
        # Nothing that anybody with access to the broker says makes it stop or consume.
        refused = app.control.broadcast("shutdown", destination=[node], reply=True, timeout=10.0, limit=1)
        assert "error" in refused[0][node]
        app.close()

        job_id = fleet.submit_to("fake@stable", fleet.card("fake@stable").revision, max_tokens=1000)
        eventually(lambda: fleet.running(job_id), "tokens")
        began = time.monotonic()
        worker.send_signal(signal.SIGTERM)
        eventually(lambda: fleet.get(job_id).state is State.QUEUED, "job back", 2.0)
        assert worker.wait(5) == 0
        assert time.monotonic() - began < 4.0
        assert read_beats(fleet.client) == ()
        assert fleet.get(job_id).deaths_total == 0


def test_a_nice_worker_and_its_engine_give_way(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADRACE_WORKER__NICE", "7")
    before = os.nice(0)
    with process(fleet, "fake:") as worker:
        beating(fleet)
        parent = psutil.Process(worker.pid)
        assert {each.nice() - before for each in (parent, *parent.children())} == {7}
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(5) == 0


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_a_hangup_is_ignored_and_the_signals_that_end_it_end_it_well(fleet: Fleet, sent: signal.Signals) -> None:
    with process(fleet, "fake:") as worker:
        beating(fleet)
        worker.send_signal(signal.SIGHUP)
        worker.send_signal(sent)
        assert worker.wait(5) == 0


def test_its_child_dies_with_it(fleet: Fleet) -> None:
    with process(fleet, "fake:hang_at=3") as worker:
        beating(fleet)
        job_id = fleet.submit_to("fake@stable", fleet.card("fake@stable").revision)
        eventually(lambda: fleet.get(job_id).state is State.RUNNING, "running")
        children = psutil.Process(worker.pid).children(recursive=True)
        assert children
        os.kill(worker.pid, signal.SIGKILL)
        _, alive = psutil.wait_procs(children, timeout=5)
        assert not alive


def test_a_file_that_is_no_model_is_refused_in_one_line(fleet: Fleet, tmp_path: Path) -> None:
    path = tmp_path / "broken.gguf"
    path.write_bytes(b"GGUF" + b"\xff" * 100)
    with process(fleet, f"file:{path}") as worker:
        _, stderr = worker.communicate(timeout=60)
        assert worker.returncode == 3
        last = stderr.decode().splitlines()[-1]
        assert last.startswith("headrace worker: ")
        assert "broken.gguf" in last
        assert "Traceback" not in stderr.decode()


@pytest.mark.parametrize(
    ("model", "redis_url", "said"),
    [
        ("no-such-model", "", "no-such-model"),
        ("fake:colour=red", "", "colour"),
        ("fake:", "unix:///nowhere/r.sock", "Redis"),
    ],
)
def test_what_cannot_start_says_so_and_exits_with_3(fleet: Fleet, model: str, redis_url: str, said: str) -> None:
    with process(fleet, model, redis_url=redis_url) as worker:
        _, stderr = worker.communicate(timeout=30)
        assert worker.returncode == 3
        lines = stderr.decode().splitlines()
        assert len(lines) == 1
        assert said in lines[0]
