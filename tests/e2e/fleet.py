"""A whole fleet as a user starts it: `headrace up` in a process of its own. Knows its output and its processes."""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import redis

from headrace.store.beats import Beat, read_beats

START_S = 90.0
STOP_S = 30.0


class Fleet:
    """`headrace up --json` on a free port and a data folder of its own. Use `running`. `workers` may be a range."""

    def __init__(
        self, folder: Path, *, model: str | Sequence[str], workers: int | str, environ: dict[str, str] | None = None
    ) -> None:
        self.data_dir = folder / "data"
        self._log = (folder / "up.log").open("wb")
        command = [sys.executable, "-m", "headrace.cli.main", "up", "--json", "--port", "auto"]
        command += ["--data-dir", str(self.data_dir), "--workers", str(workers)]
        command += [word for one in ([model] if isinstance(model, str) else model) for word in ("--model", one)]
        environment = {**os.environ, **(environ or {})}
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=self._log, env=environment, text=True)
        address = json.loads(self._first_document())
        self.url: str = address["url"]
        self.redis_url: str = address["redis_url"]
        self.model: str = address["model"]
        self.redis = redis.Redis.from_url(self.redis_url)

    def beats(self) -> list[tuple[Beat, psutil.Process]]:
        """The last beat of each parent that lives: a killed one's stays in the store until its TTL."""
        found = []
        for beat in read_beats(self.redis):
            with suppress(psutil.NoSuchProcess):
                process = psutil.Process(int(beat.worker.split("_")[-2]))
                if process.status() != psutil.STATUS_ZOMBIE:
                    found.append((beat, process))
        return found

    def workers(self) -> dict[str, psutil.Process]:
        """The living parents by worker id."""
        return {beat.worker: process for beat, process in self.beats()}

    def holder(self) -> str:
        """The worker that holds most jobs."""
        return max(self.workers(), key=lambda worker: self.redis.scard(f"hr:held:{worker}"))

    def engine_child(self, worker: str) -> psutil.Process:
        """The process that owns the worker's engine: the child that has loaded most."""
        return max(self.workers()[worker].children(), key=lambda child: int(child.memory_info().rss))

    def wait_for_workers(self, count: int, timeout: float = START_S) -> None:
        wait_until(lambda: self._ready_workers() >= count, timeout, f"{count} ready workers")

    def family(self) -> list[psutil.Process]:
        return [self.process_info(), *self.process_info().children(recursive=True)]

    def process_info(self) -> psutil.Process:
        return psutil.Process(self.process.pid)

    def stop(self) -> int:
        """Ctrl-C, and wait. The exit code."""
        self.redis.close()
        if self.process.poll() is None:
            self.process.terminate()
        try:
            return self.process.wait(STOP_S)
        finally:
            self.process.kill()
            self.process.wait()
            if self.process.stdout is not None:
                self.process.stdout.close()
            self._log.close()

    def _ready_workers(self) -> int:
        return sum(beat.state == "ready" for beat, _ in self.beats())

    def _first_document(self) -> str:
        assert self.process.stdout is not None
        watchdog = threading.Timer(START_S, self.process.kill)
        watchdog.start()
        try:
            line = self.process.stdout.readline()
        finally:
            watchdog.cancel()
        if not line:
            self.process.wait()
            self._log.close()
            raise AssertionError(f"`headrace up` did not start: {Path(self._log.name).read_text()[-2000:]}")
        return line


@contextmanager
def running(
    folder: Path, *, model: str | Sequence[str], workers: int | str = 1, environ: dict[str, str] | None = None
) -> Iterator[Fleet]:
    """A fleet with all its workers ready; stopped, and seen to leave nothing behind, at the end. Of a range of workers
    nobody is waited for."""
    fleet = Fleet(folder, model=model, workers=workers, environ=environ)
    try:
        if isinstance(workers, int):
            fleet.wait_for_workers(workers * (1 if isinstance(model, str) else len(model)))
        family = fleet.family()
        yield fleet
    finally:
        code = fleet.stop()
    assert code == 0, (folder / "up.log").read_text()[-2000:]
    wait_until(lambda: not any(p.is_running() and p.status() != "zombie" for p in family), 5, "no process left")


def wait_until(condition: Callable[[], bool], timeout: float, what: str) -> None:
    """Poll a condition until it holds; AssertionError after `timeout` seconds."""
    give_up_at = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < give_up_at, f"waited {timeout} s for {what}"
        time.sleep(0.02)
