"""Bursts of jobs on a fleet that sleeps: how soon the first token comes, and how soon it sleeps again.

    python -m tests.e2e.wake --bursts 10 --model smollm2-135m-instruct

T is what the first worker of a burst logs as the time from its process's start to ready. The first delta is due within
T + 2 s of the 202, no worker may be left 5 s after the idle setting, and every job must have ended well.
"""

import argparse
import json
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import psutil

from headrace import Client
from headrace.client.handle import JobHandle
from headrace.contract.events import Delta, Started
from tests.e2e.fleet import Fleet, running

FIRST_DELTA_SPARE_S = 2.0
ZERO_SPARE_S = 5.0
LIMIT_S = 120.0


@dataclass(frozen=True)
class Burst:
    """Seconds. `first_delta_s` and `start_s` count from the first 202, `zero_s` from the end of the last job."""

    worker: str
    ready_s: float
    start_s: float
    first_delta_s: float
    zero_s: float
    jobs: int
    ended: int

    def faults(self, idle_s: float) -> list[str]:
        """What is not as promised."""
        found = []
        if self.first_delta_s > self.ready_s + FIRST_DELTA_SPARE_S:
            found.append("late first delta")
        if self.zero_s > idle_s + ZERO_SPARE_S:
            found.append("late zero")
        if self.ended < self.jobs:
            found.append(f"{self.jobs - self.ended} jobs lost")
        return found


def burst(fleet: Fleet, client: Client, jobs: int, max_tokens: int) -> Burst:
    """Submit `jobs` at once to a fleet without workers, and watch until it has none again."""
    handles = [client.submit(model=fleet.model, prompt="The mill stands", max_tokens=max_tokens)]
    accepted_at = time.time()
    watcher = _FirstDelta(handles[0])
    handles += [
        client.submit(model=fleet.model, prompt="The mill stands", max_tokens=max_tokens) for _ in range(jobs - 1)
    ]
    ended = sum(handle.wait().usage.completion_tokens > 0 for handle in client.as_completed(handles, LIMIT_S))
    done_at = time.time()
    worker, delta_at = watcher.result()
    born_at, ready_s = _log_of(fleet, worker)
    give_up_at = time.monotonic() + LIMIT_S
    while worker_processes(fleet) and time.monotonic() < give_up_at:
        time.sleep(0.02)
    zero_s = time.time() - done_at
    return Burst(worker, ready_s, born_at - accepted_at, delta_at - accepted_at, zero_s, jobs, ended)


class _FirstDelta:
    """Follows one job in a thread of its own, so that nothing else delays what it notes."""

    def __init__(self, handle: JobHandle) -> None:
        self._found: list[tuple[str, float]] = []
        self._thread = threading.Thread(target=self._follow, args=(handle,), daemon=True)
        self._thread.start()

    def _follow(self, handle: JobHandle) -> None:
        worker = ""
        for event in handle.stream():
            if isinstance(event, Started):
                worker = event.worker
            elif isinstance(event, Delta):
                self._found.append((worker, time.time()))
                return

    def result(self) -> tuple[str, float]:
        """The worker, and the wall clock's time of the first delta."""
        self._thread.join(LIMIT_S)
        return self._found[0]


def worker_processes(fleet: Fleet) -> list[psutil.Process]:
    """The fleet's living workers, whether or not they beat."""
    return [child for child in fleet.process_info().children() if _is_worker(child)]


def _is_worker(process: psutil.Process) -> bool:
    try:
        return bool(process.cmdline()[1:3] == ["-m", "workers"])  # a zombie has no command line
    except psutil.NoSuchProcess:
        return False


def _log_of(fleet: Fleet, worker: str) -> tuple[float, float]:
    """When the worker's process was born (wall clock), and how long it took to be ready."""
    for line in _lines(fleet.data_dir / "logs"):
        if line.get("event") == "ready" and line.get("worker") == worker:
            ready_s = float(line["process_seconds"])
            return datetime.fromisoformat(line["timestamp"]).timestamp() - ready_s, ready_s
    raise AssertionError(f"{worker} never said that it is ready")


def _lines(logs: Path) -> Iterator[dict[str, str]]:
    for log in logs.glob("worker-*.log"):
        for line in log.read_text().splitlines():
            if line.startswith("{"):
                yield json.loads(line)


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main(arguments: Sequence[str] | None = None) -> int:
    """Print every burst and a verdict; 1 when something was not as promised."""
    parser = argparse.ArgumentParser(prog="python -m tests.e2e.wake")
    parser.add_argument("--bursts", type=int, default=10)
    parser.add_argument("--jobs", type=int, default=4, help="in each burst")
    parser.add_argument("--max-tokens", type=int, default=32)
    parser.add_argument("--model", default="smollm2-135m-instruct")
    parser.add_argument("--workers", default="0..2")
    parser.add_argument("--idle", type=float, default=5.0, help="scale.idle_s")
    given = parser.parse_args(arguments)
    environ = {"HEADRACE_SCALE__IDLE_S": str(given.idle), "HEADRACE_LOG__FORMAT": "json"}
    faulty = 0
    with (
        tempfile.TemporaryDirectory() as folder,
        running(Path(folder), model=given.model, workers=given.workers, environ=environ) as fleet,
        Client(fleet.url) as client,
    ):
        _say(f"{given.model}, --workers {given.workers}, idle {given.idle:g} s, {given.jobs} jobs a burst")
        _say("burst  T      202→start  202→first delta  over T  end→zero  jobs  verdict")
        for number in range(1, given.bursts + 1):
            seen = burst(fleet, client, given.jobs, given.max_tokens)
            faults = seen.faults(given.idle)
            faulty += bool(faults)
            _say(
                f"{number:5}  {seen.ready_s:5.2f}  {seen.start_s:9.3f}  {seen.first_delta_s:15.2f}  "
                f"{seen.first_delta_s - seen.ready_s:6.2f}  {seen.zero_s:8.2f}  {seen.ended}/{seen.jobs}   "
                f"{', '.join(faults) or 'ok'}"
            )
    _say(f"{given.bursts - faulty} of {given.bursts} bursts as promised")
    return 1 if faulty else 0


if __name__ == "__main__":
    sys.exit(main())
