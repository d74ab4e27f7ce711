"""Keeps processes alive: restarts what dies, stops all in order, leaves nothing behind. Knows no jobs, no settings."""

import contextlib
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from headrace.supervisor import guardian
from headrace.supervisor.process import Process, RestartPolicy, Spec

_LOOK_S = 0.02


@dataclass(frozen=True, slots=True)
class Death:
    """A process that ended although nobody asked it to. `deaths` counts those in a row, this one included."""

    spec: Spec
    pid: int
    exit_code: int
    deaths: int
    delay_s: float
    last_words: str
    log: Path

    def explain(self) -> str:
        if self.exit_code < 0:
            return f"{self.spec.name} was ended by signal {-self.exit_code}"
        return f"{self.spec.name} ended with exit code {self.exit_code}: {self.last_words}"


@dataclass(slots=True)
class _Kept:
    spec: Spec
    process: Process | None
    started_at: float
    deaths: int = 0
    due_at: float = 0.0


class Supervisor:
    """Owns its processes from one thread. Call `look` often; call `stop` in a `finally`.

    `on_death` hears of every death at once, before the restart. `inherited` are file descriptors that the guardian
    holds on to, so that a lock outlives a killed supervisor until what it had started is gone too.
    """

    def __init__(
        self,
        logs: Path,
        *,
        on_death: Callable[[Death], None],
        policy: RestartPolicy | None = None,
        echo: bool = False,
        inherited: Sequence[int] = (),
    ) -> None:
        self._logs = logs
        self._on_death = on_death
        self._policy = policy or RestartPolicy()
        self._echo = echo
        self._inherited = tuple(inherited)
        self._kept: dict[str, _Kept] = {}
        self._extra: dict[int, None] = {}
        self._guardian = self._start_guardian()

    def start(self, spec: Spec) -> Process:
        """Start it, and keep it alive from now on."""
        process = self._run(spec)
        self._kept[spec.name] = _Kept(spec, process, time.monotonic())
        return process

    def look(self, now: float) -> None:
        """Notice deaths, start what is due."""
        self._look_after_guardian()
        for kept in self._kept.values():
            if kept.process is not None and (code := kept.process.exit_code) is not None:
                self._bury(kept, kept.process, code, now)
            if kept.process is None and now >= kept.due_at:
                kept.process, kept.started_at = self._run(kept.spec), now

    def adopt(self, pid: int) -> None:
        """Let the guardian end this process too; the supervisor does not restart it."""
        self._extra[pid] = None
        self._tell(f"+{pid}")

    def dismiss(self, pid: int) -> None:
        self._extra.pop(pid, None)
        self._tell(f"-{pid}")

    def stop(self, stages: Sequence[Sequence[str]], hurry: Callable[[], bool] = lambda: False) -> None:
        """Stop by names, stage after stage: SIGTERM, as long as each may take, then SIGKILL. Then whatever is left.

        `hurry` is asked often; when it says so, nobody is waited for any more.
        """
        for stage in [*stages, [name for name in self._kept if not any(name in stage for stage in stages)]]:
            kept = [self._kept.pop(name) for name in stage if name in self._kept]
            self._stop_all([one.process for one in kept if one.process is not None], hurry)
        if self._guardian.stdin is not None:
            self._guardian.stdin.close()
        self._guardian.wait()

    def _stop_all(self, processes: Sequence[Process], hurry: Callable[[], bool]) -> None:
        for process in processes:
            process.ask_to_stop()
        began = time.monotonic()
        for process in processes:
            while process.exit_code is None and time.monotonic() - began < process.spec.grace_s and not hurry():
                time.sleep(_LOOK_S)
            process.clear()
            self._tell(f"-{process.pid}")

    def _run(self, spec: Spec) -> Process:
        process = Process(spec, self._logs / f"{spec.name}.log", echo=self._echo)
        self._tell(f"+{process.pid}")
        return process

    def _bury(self, kept: _Kept, process: Process, code: int, now: float) -> None:
        process.clear()
        self._tell(f"-{process.pid}")
        restart = self._policy.after_death(kept.deaths, now - kept.started_at)
        kept.process, kept.deaths, kept.due_at = None, restart.deaths, now + restart.delay_s
        words = process.last_words()
        self._on_death(Death(kept.spec, process.pid, code, restart.deaths, restart.delay_s, words, process.log))

    def _start_guardian(self) -> "subprocess.Popen[bytes]":
        return subprocess.Popen(
            [sys.executable, "-I", "-S", guardian.__file__, str(self._logs)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            bufsize=0,
            start_new_session=True,
            pass_fds=self._inherited,
        )

    def _look_after_guardian(self) -> None:
        if self._guardian.poll() is not None:
            if self._guardian.stdin is not None:
                self._guardian.stdin.close()
            self._guardian = self._start_guardian()
            living = [kept.process.pid for kept in self._kept.values() if kept.process is not None]
            for pid in [*living, *self._extra]:
                self._tell(f"+{pid}")

    def _tell(self, line: str) -> None:
        assert self._guardian.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it was killed; the next look starts another and tells it all
            self._guardian.stdin.write(f"{line}\n".encode())
