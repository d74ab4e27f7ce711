"""A real Redis for tests: starts, stops, kills and restarts one server in a folder. Knows no key."""

import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import redis


def redis_binary() -> str:
    """The server next to this interpreter, or the first on the PATH."""
    beside = Path(sys.executable).parent / "redis-server"
    found = str(beside) if beside.exists() else shutil.which("redis-server") or shutil.which("valkey-server")
    if not found:
        raise RuntimeError("No redis-server beside the interpreter or on the PATH; run `make install`.")
    return found


class RedisServer:
    """One server on a unix socket, with its append-only file in `folder`. The socket's path stays short on purpose."""

    def __init__(self, folder: Path, *, fsync: str = "always") -> None:
        self.folder = folder
        self.socket = folder / "r.sock"
        self._fsync = fsync
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"unix://{self.socket}"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self, limit_s: float = 20.0) -> None:
        """Start and wait until the server answers, its data loaded."""
        self.folder.mkdir(parents=True, exist_ok=True)
        options = {
            "port": "0",
            "unixsocket": str(self.socket),
            "dir": str(self.folder),
            "appendonly": "yes",
            "appendfsync": self._fsync,
            "save": "",
            "maxmemory-policy": "noeviction",
            "stream-node-max-bytes": "1024",
        }
        arguments = [part for name, value in options.items() for part in (f"--{name}", value)]
        with (self.folder / "redis.log").open("ab") as log:
            self._process = subprocess.Popen([redis_binary(), *arguments], stdout=log, stderr=log)
        deadline = time.monotonic() + limit_s
        while not self._answers():
            if time.monotonic() > deadline or self._process.poll() is not None:
                raise RuntimeError(f"Redis did not start: {(self.folder / 'redis.log').read_text()[-2000:]}")
            time.sleep(0.01)

    def _answers(self) -> bool:
        with redis.Redis(unix_socket_path=str(self.socket), socket_timeout=1) as client:
            try:
                return bool(client.ping())
            except (redis.exceptions.RedisError, OSError):
                return False

    def stop(self) -> None:
        """Ask it to end, and see that it did."""
        self._end(kill=False)

    def kill(self) -> None:
        """SIGKILL, as a machine that dies."""
        self._end(kill=True)

    def restart(self) -> None:
        """SIGKILL, then start on what is on disk."""
        self.kill()
        self.start()

    def _end(self, *, kill: bool) -> None:
        if self._process is None:
            return
        if kill:
            self._process.kill()
        else:
            self._process.terminate()
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(timeout=10)
        self._process = None
        self.socket.unlink(missing_ok=True)


@contextmanager
def running_redis(*, fsync: str = "always") -> Iterator[RedisServer]:
    """A server that runs, in a folder of its own: the names of pytest's can be too long for a unix socket."""
    with tempfile.TemporaryDirectory(prefix="hr-") as folder:
        server = RedisServer(Path(folder), fsync=fsync)
        server.start()
        try:
            yield server
        finally:
            server.stop()
