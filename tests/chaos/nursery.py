"""Brings up processes that are there at once: everything is imported here, and each one is a fork of this.

Reads one JSON object a line (`role`, `sentence`, `variables`, `log`) and writes `{"born": pid}` for it, and
`{"ended": pid, "code": …}` when that process has ended. When nobody writes any more it ends with all that it bore.
A fleet of a hundred deaths would otherwise spend most of its time importing.
"""

import os
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path

import orjson

LOOK_S = 0.02


class Nursery:
    """The side of whoever orders processes. For one thread."""

    def __init__(self, log: Path) -> None:
        self._log = log.open("wb")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.chaos.nursery"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            bufsize=0,
        )
        self._ended: dict[int, int] = {}

    def bear(self, role: str, sentence: Path, variables: Mapping[str, str], log: Path) -> int:
        """The pid of a new process."""
        assert self._process.stdin is not None
        request = {"role": role, "sentence": str(sentence), "variables": dict(variables), "log": str(log)}
        self._process.stdin.write(orjson.dumps(request) + b"\n")
        while True:
            said = self._hear()
            if "born" in said:
                return int(said["born"])

    def exit_code(self, pid: int) -> int | None:
        """None while it lives; negative for a signal."""
        assert self._process.stdout is not None
        while select.select([self._process.stdout], [], [], 0)[0]:
            self._hear()
        return self._ended.get(pid)

    def close(self) -> None:
        """Ends everything that it bore."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()
        self._log.close()

    def _hear(self) -> dict[str, int]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"The nursery has ended: {Path(self._log.name).read_text()[-2000:]}")
        said: dict[str, int] = orjson.loads(line)
        if "ended" in said:
            self._ended[said["ended"]] = said["code"]
        return said


def serve() -> None:
    """The other side."""
    _import_all()
    assert threading.active_count() == 1, "a fork would take one of several threads along"
    pids: set[int] = set()
    pending = b""
    while True:
        for pid in [pid for pid in pids if _bury(pid)]:
            pids.remove(pid)
        if not select.select([0], [], [], LOOK_S)[0]:
            continue
        read = os.read(0, 65_536)
        if not read:
            break
        *lines, pending = (pending + read).split(b"\n")
        for line in lines:
            pid = _fork(orjson.loads(line))
            pids.add(pid)
            _say({"born": pid})
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def _import_all() -> None:
    import importlib

    for name in ("workers.shell", "workers.inference.child", "gateway.__main__", "uvloop"):
        importlib.import_module(name)
    for name in ("doomed_queue", "doomed_engine", "doomed_relay", "process"):
        importlib.import_module(f"tests.chaos.{name}")


def _fork(request: Mapping[str, object]) -> int:
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        code = _play(request)
    except SystemExit as end:
        code = int(end.code or 0)
    except BaseException:  # noqa: BLE001 - the end of this process, whatever it was: its log says why
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _play(request: Mapping[str, object]) -> int:
    from tests.chaos.process import ROLES

    _belong_to_nursery()
    log = os.open(str(request["log"]), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for theirs, ours in ((nothing, 0), (log, 1), (log, 2)):
        os.dup2(theirs, ours)
    variables = request["variables"]
    assert isinstance(variables, dict)
    os.environ.update(variables)
    return ROLES[str(request["role"])](Path(str(request["sentence"])))


def _belong_to_nursery() -> None:
    """Whatever ends the nursery ends this, on Linux."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None, use_errno=True).prctl(1, signal.SIGKILL)


def _bury(pid: int) -> bool:
    found, status = os.waitpid(pid, os.WNOHANG)
    if found:
        _say({"ended": pid, "code": os.waitstatus_to_exitcode(status)})
    return bool(found)


def _say(what: Mapping[str, int]) -> None:
    os.write(1, orjson.dumps(what) + b"\n")


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    serve()
