"""A real RabbitMQ for tests: one node with a name, ports and a folder of its own. Knows no queue of ours.

It brings its own port mapper, so that it meets no other node of this machine, and leaves nothing behind.
"""

import os
import random
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_PLACES = ("/usr/lib/rabbitmq/bin/rabbitmq-server",)
"""Debian's wrapper on the PATH insists on a user and a folder of its own; what it wraps does not."""

START_S = 150.0
"""A start is seven seconds of processor time; a busy machine has been seen to take more than sixty for it."""
_PORTS = range(12_000, 32_000)
"""Below those that the system gives to connections and to servers that ask for any: while a broker is dead, nobody
else may come by its ports."""


def rabbitmq_binary() -> str | None:
    return next((place for place in _PLACES if os.access(place, os.X_OK)), None) or shutil.which("rabbitmq-server")


class RabbitMq:
    """Starts, kills and restarts one broker on what it has on disk."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._port, self._dist, self._epmd = _free_ports(3)
        self._node = f"hr{secrets.token_hex(4)}@localhost"
        self._mapper: subprocess.Popen[bytes] | None = None
        self._broker: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"amqp://guest:guest@127.0.0.1:{self._port}/"

    def begin(self) -> None:
        """Start it, and wait for nothing."""
        self._folder.mkdir(parents=True, exist_ok=True)
        for name, text in (("plugins", "[].\n"), ("rabbitmq.conf", "loopback_users = none\n")):
            (self._folder / name).write_text(text)
        if self._mapper is None:
            self._mapper = subprocess.Popen(
                ["epmd", "-port", str(self._epmd), "-address", "127.0.0.1"],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
        binary = rabbitmq_binary()
        assert binary is not None
        with (self._folder / "broker.log").open("wb") as log:
            self._broker = subprocess.Popen(
                [binary],
                env=self._environment(),
                cwd=self._folder,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def wait(self, limit_s: float = START_S) -> None:
        """Until it answers."""
        assert self._broker is not None
        give_up_at = time.monotonic() + limit_s
        while not self._answers():
            if time.monotonic() > give_up_at or self._broker.poll() is not None:
                raise RuntimeError(f"RabbitMQ did not start: {(self._folder / 'broker.log').read_text()[-2000:]}")
            time.sleep(0.05)

    def kill(self) -> None:
        """SIGKILL, as a machine that dies. On return every connection to it is closed: with that a process ends."""
        if self._broker is not None:
            with suppress(ProcessLookupError):
                os.killpg(self._broker.pid, signal.SIGKILL)
            self._broker.wait()
            self._broker = None

    def restart(self) -> None:
        self.kill()
        self.begin()
        self.wait()

    def stop(self) -> None:
        self.kill()
        if self._mapper is not None:
            self._mapper.kill()
            self._mapper.wait()
            self._mapper = None

    def _environment(self) -> dict[str, str]:
        folder = self._folder
        return os.environ | {
            "HOME": str(folder),  # where Erlang keeps its cookie
            "ERL_CRASH_DUMP_BYTES": "0",
            "ERL_EPMD_PORT": str(self._epmd),
            "RABBITMQ_NODENAME": self._node,
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": str(self._port),
            "RABBITMQ_DIST_PORT": str(self._dist),
            "RABBITMQ_MNESIA_BASE": str(folder / "data"),
            "RABBITMQ_LOG_BASE": str(folder / "log"),
            "RABBITMQ_PID_FILE": str(folder / "pid"),
            "RABBITMQ_CONFIG_FILE": str(folder / "rabbitmq.conf"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "plugins"),
            # The process we started is the node itself then, not a shell that waits for it.
            "RUNNING_UNDER_SYSTEMD": "true",
            # A scheduler that spins while it waits takes a core from the tests.
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+S 2:2 +sbwt none +sbwtdcpu none +sbwtdio none",
        }

    def _answers(self) -> bool:
        """It speaks a little before it has started, and may then keep a confirm to itself."""
        if b"completed with" not in (self._folder / "broker.log").read_bytes():
            return False
        try:
            with socket.create_connection(("127.0.0.1", self._port), timeout=1) as probe:
                probe.sendall(b"AMQP\x00\x00\x09\x01")
                return probe.recv(1) == b"\x01"
        except OSError:
            return False


@contextmanager
def running_rabbitmq() -> Iterator[RabbitMq]:
    """One that has begun to start; `wait` for it."""
    with tempfile.TemporaryDirectory(prefix="hr-rabbit-", ignore_cleanup_errors=True) as folder:
        server = RabbitMq(Path(folder))
        server.begin()
        try:
            yield server
        finally:
            server.stop()


def _free_ports(count: int) -> list[int]:
    """Nobody listens on them now; which are tried first is left to chance, since other processes look as well."""
    found: list[int] = []
    for port in random.SystemRandom().sample(_PORTS, len(_PORTS)):
        if len(found) == count:
            break
        with socket.socket() as one, suppress(OSError):
            one.bind(("127.0.0.1", port))
            found.append(port)
    return found
