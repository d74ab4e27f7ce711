"""The driver's side of a runner: starts it, asks it, puts it to sleep, ends it. Knows processes, no engine."""

import json
import os
import select
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from benchmarks.machine import ROOT
from benchmarks.workloads import Ask, output_tokens

_STOP_S = 5.0
_TAIL = 1_500


class PeerError(Exception):
    """An engine that could not be installed, did not start, or failed; the message is for the results."""


@dataclass(frozen=True, slots=True)
class Ran:
    """One measured run, preparation of the requests left out."""

    seconds: float
    output_tokens: int

    @property
    def tokens_per_second(self) -> float:
        return self.output_tokens / self.seconds


class RunnerProcess:
    """A runner and its children, all in one process group: asleep unless it is asked something.

    The group is a child of this session: should the driver be killed, the kernel wakes and ends what sleeps in it.
    """

    def __init__(self, command: Sequence[str], environ: Mapping[str, str], log: Path, timeout_s: float) -> None:
        log.parent.mkdir(parents=True, exist_ok=True)
        self._log = log
        self._unread = b""
        began = time.perf_counter()
        with log.open("wb") as errors:
            self._process = subprocess.Popen(
                list(command),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                env={**os.environ, **environ},
                cwd=ROOT,
                process_group=0,
            )
        try:
            hello = self._receive(timeout_s)
        except PeerError:
            self.stop()
            raise
        self.start_s = time.perf_counter() - began
        self.load_s = float(hello["load_s"])
        self.about: dict[str, Any] = hello["about"]
        self._sleep()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def run(self, asks: tuple[Ask, ...], timeout_s: float, *, all_of_them: bool = True) -> Ran:
        """Run these requests. Raises PeerError when the engine dies, takes too long or gives other lengths than asked
        for; shorter ones may be allowed."""
        message = json.dumps({"asks": [[ask.prompt, ask.new_tokens] for ask in asks]}) + "\n"
        self._signal(signal.SIGCONT)
        try:
            self._send(message.encode())
            reply = self._receive(timeout_s)
        finally:
            self._sleep()
        if all_of_them and reply["tokens"] != [ask.new_tokens for ask in asks]:
            raise PeerError(f"gave {sum(reply['tokens'])} tokens where {output_tokens(asks)} were asked for")
        return Ran(float(reply["seconds"]), sum(reply["tokens"]))

    def stop(self) -> None:
        """Let it end, then kill what is left of the group."""
        self._signal(signal.SIGCONT)
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with suppress(OSError):
            self._process.stdin.close()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(_STOP_S)
        self._signal(signal.SIGKILL)
        self._process.wait()
        self._process.stdout.close()

    def _sleep(self) -> None:
        self._signal(signal.SIGSTOP)

    def _signal(self, number: signal.Signals) -> None:
        with suppress(ProcessLookupError):  # it may have ended by itself
            os.killpg(self._process.pid, number)

    def _send(self, message: bytes) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(message)
            self._process.stdin.flush()
        except OSError as error:
            raise PeerError(self._last_words("ended")) from error

    def _receive(self, timeout_s: float) -> dict[str, Any]:
        assert self._process.stdout is not None
        descriptor = self._process.stdout.fileno()
        give_up_at = time.monotonic() + timeout_s
        while b"\n" not in self._unread:
            ready, _, _ = select.select([descriptor], [], [], max(0.0, give_up_at - time.monotonic()))
            if not ready:
                self._signal(signal.SIGKILL)
                raise PeerError(self._last_words(f"took longer than {timeout_s:g} s"))
            chunk = os.read(descriptor, 1 << 16)
            if not chunk:
                raise PeerError(self._last_words("ended"))
            self._unread += chunk
        line, _, self._unread = self._unread.partition(b"\n")
        message: dict[str, Any] = json.loads(line)
        return message

    def _last_words(self, what: str) -> str:
        words = self._log.read_text(encoding="utf-8", errors="replace").strip()[-_TAIL:]
        return f"the runner {what}; the end of its log:\n{words}" if words else f"the runner {what} without a word"
