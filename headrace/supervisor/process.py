"""One process that is to be kept alive: how it is started, told to stop, cleared away. Knows nothing of its work."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from headrace.contract.errors import SetupError

_LOG_LIMIT = 20_000_000


@dataclass(frozen=True, slots=True)
class Spec:
    """What to run. `variables` are added to the environment; `grace_s` is how long SIGTERM may take."""

    name: str
    command: tuple[str, ...]
    variables: Mapping[str, str] = field(default_factory=dict)
    grace_s: float = 10.0


@dataclass(frozen=True, slots=True)
class Restart:
    """What a death leads to: another start after `delay_s`, and how many deaths in a row that makes."""

    deaths: int
    delay_s: float


@dataclass(frozen=True, slots=True)
class RestartPolicy:
    first_s: float = 0.2
    longest_s: float = 10.0
    healthy_s: float = 30.0
    """Whoever lived this long begins again at the first delay."""

    def after_death(self, deaths_before: int, lived_s: float) -> Restart:
        deaths = 1 if lived_s >= self.healthy_s else deaths_before + 1
        return Restart(deaths, min(self.longest_s, self.first_s * 2 ** min(deaths - 1, 30)))


class Process:
    """One run of a Spec, in a session of its own, so that a terminal's Ctrl-C reaches the supervisor alone.

    Its output goes to `log`, and to standard error too when `echo` is set.
    """

    def __init__(self, spec: Spec, log: Path, *, echo: bool = False) -> None:
        self.spec = spec
        self.log = log
        output = _open_log(log)
        try:
            self._popen = subprocess.Popen(
                spec.command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE if echo else output,
                stderr=subprocess.STDOUT,
                env={**os.environ, **spec.variables},
                start_new_session=True,
            )
        except OSError as error:
            output.close()
            raise SetupError(f"{spec.name} cannot be started: {error.strerror} ({spec.command[0]}).") from error
        self._copier: threading.Thread | None = None
        if self._popen.stdout is not None:
            self._copier = threading.Thread(target=_copy, args=(spec.name, self._popen.stdout, output), daemon=True)
            self._copier.start()
        else:
            output.close()

    @property
    def pid(self) -> int:
        return self._popen.pid

    @property
    def exit_code(self) -> int | None:
        """None while it lives; negative for a signal."""
        return self._popen.poll()

    def ask_to_stop(self) -> None:
        self._popen.send_signal(signal.SIGTERM)

    def clear(self) -> None:
        """SIGKILL to whatever is left of its group: the process itself, or children that outlived it."""
        with contextlib.suppress(ProcessLookupError, PermissionError):  # macOS: EPERM for a group of zombies
            os.killpg(self.pid, signal.SIGKILL)
        self._popen.wait()
        if self._copier:
            self._copier.join(1.0)  # somebody who left the group may hold the other end for longer

    def last_words(self) -> str:
        """The last line of its log that says something."""
        try:
            with self.log.open("rb") as file:
                file.seek(max(0, file.seek(0, os.SEEK_END) - 4096))
                lines = file.read().decode(errors="replace").splitlines()
        except OSError:
            lines = []
        return next((line.strip() for line in reversed(lines) if line.strip()), "it said nothing")


def _open_log(path: Path) -> BinaryIO:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists() and path.stat().st_size > _LOG_LIMIT:
            path.replace(path.with_suffix(".log.1"))
        return path.open("ab")
    except OSError as error:
        raise SetupError(
            f"The log {path} cannot be written: {error.strerror}.", next_step="Choose another folder with --data-dir."
        ) from error


def _copy(name: str, source: BinaryIO, log: BinaryIO) -> None:
    with source, log:
        for line in source:
            log.write(line)
            log.flush()
            sys.stderr.write(f"{name} | {line.decode(errors='replace')}")
