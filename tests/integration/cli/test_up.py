"""`headrace up` with real servers and the fake engine: the whole road, kills, and nothing left behind."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import psutil
import pytest
import redis

from headrace import Client
from headrace.contract.events import Delta, Event, Resumed, Started
from headrace.store.beats import read_beats

SLOW = "fake:speed=60"


class Up:
    """`headrace up` in a process of its own."""

    def __init__(self, folder: Path, *arguments: str, models: Sequence[str] = (SLOW,)) -> None:
        self.folder = folder / "data"
        self.log = folder / "up.log"
        kept = {name: value for name, value in os.environ.items() if not name.startswith("HEADRACE_")}
        # Reaping must tick well within a lease, or the queue takes every tick for the end of an outage.
        kept |= {
            f"HEADRACE_QUEUE__{n}": v for n, v in {"LEASE_MS": "2000", "RENEW_MS": "400", "REAP_MS": "200"}.items()
        }
        command = [sys.executable, "-m", "headrace.cli.main", "up", "--data-dir", str(self.folder), "--port", "auto"]
        command += [word for model in models for word in ("--model", model)]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [*command, *arguments], stdout=subprocess.PIPE, stderr=log, env=kept, text=True
            )

    def address(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, self.log.read_text()
        address: dict[str, Any] = json.loads(line)
        return address

    def family(self) -> list[psutil.Process]:
        return list(psutil.Process(self.process.pid).children(recursive=True))

    def pid_of(self, word: str) -> int:
        children = psutil.Process(self.process.pid).children()
        return int(next(one.pid for one in children if any(word in part for part in one.cmdline()[:3])))

    def tasks(self) -> list[psutil.Process]:
        """The task role's process, while it lives."""
        children = [one for one in psutil.Process(self.process.pid).children() if one.status() != psutil.STATUS_ZOMBIE]
        return [one for one in children if "workers.celery_app" in one.cmdline()]

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
            try:
                self.process.wait(30)
            finally:
                self.process.kill()
                self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Up]]:
    started: list[Up] = []

    def one(*arguments: str, models: Sequence[str] = (SLOW,)) -> Up:
        started.append(Up(tmp_path, *arguments, models=models))
        return started[-1]

    yield one
    for up in started:
        up.close()


def until(condition: Callable[[], object], what: str, limit_s: float = 20.0) -> None:
    give_up_at = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < give_up_at, what
        time.sleep(0.02)


def all_gone(family: list[psutil.Process]) -> bool:
    def gone(process: psutil.Process) -> bool:
        try:
            return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return True

    return all(gone(process) for process in family)


def test_jobs_run_and_ctrl_c_leaves_nothing(start: Callable[..., Up]) -> None:
    up = start("--json", "--workers", "2")
    address = up.address()
    until(lambda: up.tasks(), "the task role")
    first = up.tasks()[0]
    first.kill()
    with Client(address["url"]) as client:
        handles = [client.submit(model=address["model"], prompt=f"{n}", max_tokens=8) for n in range(20)]
        done = {handle.id: handle.wait().usage.completion_tokens for handle in client.as_completed(handles, 60)}
    assert done == {handle.id: 8 for handle in handles}
    until(lambda: [one for one in up.tasks() if one.pid != first.pid], "the task role again")
    family = up.family()
    up.process.send_signal(signal.SIGINT)
    assert up.process.wait(30) == 0, up.log.read_text()
    until(lambda: all_gone(family), "all processes gone")
    with pytest.raises(redis.ConnectionError), redis.Redis.from_url(address["redis_url"]) as client_:
        client_.ping()


def test_a_killed_up_leaves_nothing_and_its_work_goes_on_in_the_next(start: Callable[..., Up]) -> None:
    first = start("--json")
    address = first.address()
    with Client(address["url"]) as client:
        job = client.submit(model="fake", prompt="survive", seed=1, max_tokens=60)
        next(job.text_stream())
    family = first.family()
    first.process.kill()
    until(lambda: all_gone(family), "all processes gone")
    with Client(start("--json").address()["url"]) as client:
        undisturbed = client.submit(model="fake", prompt="survive", seed=1, max_tokens=60)
        assert client.job(job.id).wait(timeout=60).text == undisturbed.wait(timeout=60).text


@pytest.mark.parametrize("victim", ["workers", "gateway", "redis-server"])
def test_a_stream_survives_the_death_of(victim: str, start: Callable[..., Up]) -> None:
    up = start("--json", "--workers", "2")
    with Client(up.address()["url"]) as client:
        undisturbed = client.submit(model="fake", prompt="go on", seed=5, max_tokens=90)
        expected = "".join(undisturbed.text_stream())
        events: list[Event] = []
        for event in client.submit(model="fake", prompt="go on", seed=5, max_tokens=90).stream():
            events.append(event)
            if isinstance(event, Delta) and sum(isinstance(one, Delta) for one in events) == 8:
                worker = next(one.worker for one in events if isinstance(one, Started))
                os.kill(int(worker.split("_")[-2]) if victim == "workers" else up.pid_of(victim), signal.SIGKILL)
    assert "".join(event.text for event in events if isinstance(event, Delta)) == expected
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    assert any(isinstance(event, Resumed) for event in events) == (victim == "workers")


def test_a_command_gets_the_addresses_and_gives_its_exit_code(start: Callable[..., Up]) -> None:
    source = "import os, sys; print(os.environ['HEADRACE_URL'], *sys.argv[1:]); sys.exit(7)"
    up = start("--", sys.executable, "-c", source, "{url}", "{redis_url}", "{model}")
    out, _ = up.process.communicate(timeout=60)
    assert up.process.returncode == 7, up.log.read_text()
    url, same_url, redis_url, model = out.split()
    assert (url, model) == (same_url, "fake")
    assert redis_url.startswith("redis://127.0.0.1:")


def test_two_cannot_share_a_folder(start: Callable[..., Up]) -> None:
    first = start("--json")
    first.address()
    second = start("--json")
    assert second.process.wait(30) == 1
    assert f"process {first.process.pid}" in second.log.read_text()


def test_a_worker_that_never_starts_ends_it_with_its_own_words(start: Callable[..., Up], tmp_path: Path) -> None:
    corrupt = tmp_path / "corrupt.gguf"
    corrupt.write_bytes(b"GGUF" + bytes(64))
    up = start("--json", models=[f"file:{corrupt}"])
    assert up.process.wait(60) == 1
    last = up.log.read_text().splitlines()[-1]
    assert last.startswith("headrace: worker-1 ended with exit code")
    assert "worker-1.log" in last


def test_a_card_of_an_earlier_run_makes_no_fleet_ready(start: Callable[..., Up]) -> None:
    """The card outlives its fleet in the data folder; a model that cannot start must still end the next `up`."""
    first = start("--", "true")
    assert first.process.wait(60) == 0, first.log.read_text()
    second = start("--", "true", models=["fake:knob=1"])
    assert second.process.wait(60) == 1
    (line,) = second.log.read_text().splitlines()
    assert "no knob 'knob'" in line
    assert f"Its log: {second.folder}" in line


def test_a_fleet_without_workers_accepts_and_is_killed_as_any_other(start: Callable[..., Up]) -> None:
    """Of two models that never had a worker, the one that is asked for gets one; killed meanwhile, nothing stays."""
    up = start("--json", "--workers", "0..2", models=["quick=fake:speed=200", "slow=fake:speed=40"])
    address = up.address()
    assert (address["model"], address["models"]) == ("quick", ["quick", "slow"])
    with Client(address["url"]) as client, redis.Redis.from_url(address["redis_url"]) as store:
        assert not read_beats(store)
        assert sorted(client.models()) == ["quick", "slow"]
        client.submit(model="slow", prompt="wake", max_tokens=8)
        until(lambda: read_beats(store), "a worker that starts", limit_s=30)
        assert {beat.lane for beat in read_beats(store)} == {"slow@stable"}
    family = up.family()
    up.process.kill()
    until(lambda: all_gone(family), "all processes gone")


def test_a_killed_worker_of_a_lane_that_scales_gives_its_job_back(start: Callable[..., Up]) -> None:
    up = start("--json", "--workers", "0..1")
    with Client(up.address()["url"]) as client:
        expected = client.submit(model="fake", prompt="go on", seed=5, max_tokens=60)
        job = client.submit(model="fake", prompt="go on", seed=5, max_tokens=60)
        events: list[Event] = []
        for event in job.stream():
            events.append(event)
            if isinstance(event, Delta) and sum(isinstance(one, Delta) for one in events) == 4:
                worker = next(one.worker for one in events if isinstance(one, Started))
                os.kill(int(worker.split("_")[-2]), signal.SIGKILL)
        assert any(isinstance(event, Resumed) for event in events)
        assert "".join(event.text for event in events if isinstance(event, Delta)) == expected.wait(timeout=60).text


@pytest.mark.parametrize(
    ("arguments", "models", "words"),
    [(["--workers=3..1"], [SLOW], "3..1"), ([], ["fake:speed=1", "fake:speed=2"], "Two models are called fake")],
)
def test_what_cannot_be_served_is_refused_at_once(
    arguments: list[str], models: list[str], words: str, start: Callable[..., Up]
) -> None:
    up = start(*arguments, models=models)
    assert up.process.wait(30) == 1
    (line,) = up.log.read_text().splitlines()
    assert words in line
