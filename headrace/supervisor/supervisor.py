"""Keeps processes alive: restarts what dies, stops all in order, leaves nothing behind. Knows no jobs, no settings."""

import contextlib
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from headrace.contract.errors import SetupError
from headrace.supervisor import guardian
from headrace.supervisor.process import Process, RestartPolicy, Spec

_LOOK_S = 0.02


@dataclass(frozen=True, slots=True)
class Death:
    """A process that ended although nobody asked it to, or could not be started: then it has no pid and no exit code.
    `deaths` counts those in a row, this one included."""

    spec: Spec
    pid: int | None
    exit_code: int | None
    deaths: int
    delay_s: float
    last_words: str
    log: Path

    def explain(self) -> str:
        if self.exit_code is None:
            return self.last_words
        if self.exit_code < 0:
            return f"{self.spec.name} was ended by signal {-self.exit_code}"
        return f"{self.spec.name} ended with exit code {self.exit_code}: {self.last_words}"


@dataclass(frozen=True, slots=True)
class Child:
    """A process that is kept alive, or is leaving. `pid` is None between a death and the next start; `deaths` counts
    those in a row."""

    name: str
    pid: int | None
    deaths: int
    leaving: bool


@dataclass(slots=True)
class _Kept:
    spec: Spec
    process: Process | None
    started_at: float
    deaths: int = 0
    due_at: float = 0.0
    asked_at: float | None = None
    """When it was asked to leave."""


class Supervisor:
    """Owns its processes from one thread. Call `look` often; call `stop` in a `finally`.

    `on_death` hears of every death at once, before the restart; `on_leave` of the name, pid and exit code of each that
    was retired. `inherited` are file descriptors that the guardian holds on to, so that a lock outlives a killed
    supervisor until what it had started is gone too.
    """

    def __init__(
        self,
        logs: Path,
        *,
        on_death: Callable[[Death], None],
        on_leave: Callable[[str, int, int], None] = lambda name, pid, exit_code: None,
        policy: RestartPolicy | None = None,
        echo: bool = False,
        inherited: Sequence[int] = (),
    ) -> None:
        self._logs = logs
        self._on_death = on_death
        self._on_leave = on_leave
        self._policy = policy or RestartPolicy()
        self._echo = echo
        self._inherited = tuple(inherited)
        self._kept: dict[str, _Kept] = {}
        self._extra: dict[int, None] = {}
        self._guardian = self._start_guardian()

    def start(self, spec: Spec) -> Process:
        """Start it, and keep it alive from now on. Raises SetupError when it cannot be started."""
        process = self._run(spec)
        self._kept[spec.name] = _Kept(spec, process, time.monotonic())
        return process

    def keep(self, spec: Spec) -> None:
        """Keep it alive from now on; that it cannot be started is a death, and tried again as after one."""
        now = time.monotonic()
        self._kept[spec.name] = _Kept(spec, None, now)
        self._revive(self._kept[spec.name], now)

    def retire(self, name: str) -> None:
        """Ask it to stop, and forget it once it has: no restart and no death. Killed when it takes too long."""
        kept = self._kept[name]
        if kept.process is None:
            del self._kept[name]
        elif kept.asked_at is None:
            kept.asked_at = time.monotonic()
            kept.process.ask_to_stop()

    def children(self) -> dict[str, Child]:
        """By name, as the last look found them."""
        return {
            name: Child(name, kept.process.pid if kept.process else None, kept.deaths, kept.asked_at is not None)
            for name, kept in self._kept.items()
        }

    def look(self, now: float) -> None:
        """Notice deaths, start what is due."""
        self._look_after_guardian()
        for kept in list(self._kept.values()):
            if kept.asked_at is not None:
                self._see_off(kept, now)
                continue
            if kept.process is not None and (code := kept.process.exit_code) is not None:
                self._bury(kept, kept.process, code, now)
            if kept.process is None and now >= kept.due_at:
                self._revive(kept, now)

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
            for one in kept:
                if one.process is not None and one.asked_at is None:
                    one.process.ask_to_stop()
            self._await_all([one.process for one in kept if one.process is not None], hurry)
        if self._guardian.stdin is not None:
            self._guardian.stdin.close()
        self._guardian.wait()

    def _await_all(self, processes: Sequence[Process], hurry: Callable[[], bool]) -> None:
        began = time.monotonic()
        for process in processes:
            while process.exit_code is None and time.monotonic() - began < process.spec.grace_s and not hurry():
                time.sleep(_LOOK_S)
            process.clear()
            self._tell(f"-{process.pid}")

    def _run(self, spec: Spec) -> Process:
        process = Process(spec, self._log_of(spec), echo=self._echo)
        self._tell(f"+{process.pid}")
        return process

    def _revive(self, kept: _Kept, now: float) -> None:
        kept.started_at = now
        try:
            kept.process = self._run(kept.spec)
        except SetupError as error:  # no room for a process or its log now; what runs goes on
            self._mourn(kept, None, None, error.message.rstrip("."), now)

    def _bury(self, kept: _Kept, process: Process, code: int, now: float) -> None:
        process.clear()
        self._tell(f"-{process.pid}")
        kept.process = None
        self._mourn(kept, process.pid, code, process.last_words(), now)

    def _mourn(self, kept: _Kept, pid: int | None, code: int | None, words: str, now: float) -> None:
        restart = self._policy.after_death(kept.deaths, now - kept.started_at)
        kept.deaths, kept.due_at = restart.deaths, now + restart.delay_s
        log = self._log_of(kept.spec)
        self._on_death(Death(kept.spec, pid, code, restart.deaths, restart.delay_s, words, log))

    def _log_of(self, spec: Spec) -> Path:
        return self._logs / f"{spec.name}.log"

    def _see_off(self, kept: _Kept, now: float) -> None:
        assert kept.process is not None
        assert kept.asked_at is not None
        code = kept.process.exit_code
        if code is None and now - kept.asked_at < kept.spec.grace_s:
            return
        kept.process.clear()
        self._tell(f"-{kept.process.pid}")
        del self._kept[kept.spec.name]
        self._on_leave(kept.spec.name, kept.process.pid, -signal.SIGKILL if code is None else code)

    def _start_guardian(self, living: Sequence[int] = ()) -> "subprocess.Popen[bytes]":
        return subprocess.Popen(
            [sys.executable, "-I", "-S", guardian.__file__, str(self._logs), *(str(pid) for pid in living)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            bufsize=0,
            start_new_session=True,
            pass_fds=self._inherited,
        )

    def _look_after_guardian(self) -> None:
        if self._guardian.poll() is None:
            return
        living = [kept.process.pid for kept in self._kept.values() if kept.process is not None]
        with contextlib.suppress(OSError):  # no room for a process now: the next look tries again
            late, self._guardian = self._guardian, self._start_guardian([*living, *self._extra])
            if late.stdin is not None:
                late.stdin.close()

    def _tell(self, line: str) -> None:
        assert self._guardian.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it was killed; the next look starts another and tells it all
            self._guardian.stdin.write(f"{line}\n".encode())
