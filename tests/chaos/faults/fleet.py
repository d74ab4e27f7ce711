"""A gateway and two workers as processes, each with a line of its own to one Redis. Knows settings, no jobs."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import httpx2

from headrace.settings import (
    EngineSettings,
    GatewaySettings,
    LogSettings,
    PathSettings,
    QueueSettings,
    RedisSettings,
    Settings,
    WorkerSettings,
    as_variables,
)
from headrace.store.connection import connect
from headrace.supervisor.redis_server import free_port
from tests.chaos.faults.proxy import FaultProxy, proxying
from tests.redis_server import RedisServer

WORKERS = 2
START_S = 60.0
STOP_S = 20.0
MODEL = "fake"


@dataclass(frozen=True, slots=True)
class Times:
    """Seconds, but for the settings of the queue. `trouble_s` is how long trouble lasts, `speed` tokens per second,
    `slack_s` what a busy machine may add to a bound."""

    queue: QueueSettings = field(default_factory=QueueSettings)
    timeout_s: float = 5.0
    ping_s: float = 1.0
    trouble_s: float = 5.0
    speed: float = 20.0
    tokens: int = 340
    streams: int = 8
    slack_s: float = 2.0


BY_DEFAULT = Times()
SHORT = Times(
    queue=QueueSettings(lease_ms=2_000, renew_ms=400, beat_ms=200, reap_ms=200),
    timeout_s=0.6,
    ping_s=0.3,
    trouble_s=1.2,
    speed=50.0,
    tokens=160,
    streams=8,
)
"""The same protocol, five times as fast."""

QUICK = replace(SHORT, timeout_s=1.0, trouble_s=0.8, tokens=100, streams=6, slack_s=8.0)
"""For a test among others."""


class FaultFleet:
    """Use `running`. `lines` are the gateway's and each worker's way to Redis; tests reach it directly."""

    def __init__(self, folder: Path, server: RedisServer, lines: list[FaultProxy], times: Times) -> None:
        self.folder = folder
        self.server = server
        self.gateway_line, *self.worker_lines = lines
        self.times = times
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.client = connect(server.url)
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    @property
    def lines(self) -> list[FaultProxy]:
        return [self.gateway_line, *self.worker_lines]

    def start(self) -> None:
        self._spawn("gateway", self.gateway_line, "gateway")
        for number, line in enumerate(self.worker_lines):
            self._spawn(f"worker{number}", line, "workers")
        wait_until(self._is_whole, START_S, "the fleet to be whole")

    def move(self, server: RedisServer) -> None:
        """Say which server is the one from now on. The lines are the caller's."""
        self.client.close()
        self.server, self.client = server, connect(server.url)

    def dead(self) -> list[str]:
        """Processes that have ended, with what they said last."""
        return [
            f"{name} ended with {process.returncode}: {(self.folder / f'{name}.log').read_text()[-600:]}"
            for name, process in self.processes.items()
            if process.poll() is not None
        ]

    def stop(self) -> None:
        for process in self.processes.values():
            process.send_signal(signal.SIGTERM)
        for process in self.processes.values():
            with suppress(subprocess.TimeoutExpired):
                process.wait(STOP_S)
            process.kill()
            process.wait()
        self.client.close()

    def _spawn(self, name: str, line: FaultProxy, module: str) -> None:
        others = {key: value for key, value in os.environ.items() if not key.startswith("HEADRACE_")}
        with (self.folder / f"{name}.log").open("wb") as log:
            self.processes[name] = subprocess.Popen(
                [sys.executable, "-m", module],
                env=others | as_variables(self._settings(name, line)),
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def _settings(self, name: str, line: FaultProxy) -> Settings:
        times = self.times
        return Settings(
            paths=PathSettings(data_dir=self.folder / "data"),
            redis=RedisSettings(
                url=f"redis://{line.address}/0",
                connect_timeout_s=times.timeout_s,
                socket_timeout_s=times.timeout_s,
            ),
            queue=times.queue,
            gateway=GatewaySettings(port=self.port, ping_s=times.ping_s),
            worker=WorkerSettings(model=f"fake:speed={times.speed:g},kv_tokens=65536", tag=name, max_jobs=64),
            engine=EngineSettings(threads=1),
            log=LogSettings(format="json"),
        )

    def _is_whole(self) -> bool:
        assert not self.dead(), self.dead()
        with suppress(httpx2.HTTPError):
            workers = httpx2.get(f"{self.url}/health/fleet", timeout=5.0).json().get("workers", [])
            states = [worker["state"] for worker in workers]
            return states == ["ready"] * WORKERS
        return False


@contextmanager
def running(folder: Path, times: Times, *, fsync: str = "always") -> Iterator[FaultFleet]:
    """A whole fleet; `folder` gets its logs. Its Redis lives in a folder with a short name, for its socket's sake."""
    with ExitStack() as stack:
        server = RedisServer(folder / "r0", fsync=fsync)
        server.start()
        lines = [stack.enter_context(proxying(server.url, number)) for number in range(1 + WORKERS)]
        fleet = FaultFleet(folder, server, lines, times)
        try:
            fleet.start()
            yield fleet
        finally:
            fleet.stop()
            fleet.server.stop()


def wait_until(condition: Callable[[], bool], timeout_s: float, what: str) -> None:
    """Ask again and again; AssertionError when it has not held within `timeout_s`."""
    give_up_at = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < give_up_at, f"waited {timeout_s:g} s for {what}"
        time.sleep(0.02)
