"""The folder that one `headrace up` owns: made, found writable, locked. Knows no process but the one that holds it."""

import fcntl
import os
import shutil
import time
from pathlib import Path

from headrace.contract.errors import SetupError

_LOCK_WAIT_S = 3.0
_LEAST_FREE = 64 << 20


class DataFolder:
    """A locked data folder with at least `least_free` bytes to write to.

    The lock lasts as long as any process holds `lock_fd`, and goes with the last of them.

    Raises SetupError: no rights, no space, or another process owns it (and which).
    """

    def __init__(self, path: Path, *, wait_s: float = _LOCK_WAIT_S, least_free: int = _LEAST_FREE) -> None:
        self.path = path.absolute()
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._file = (self.path / "lock").open("a+")
            self._lock(wait_s)
            self._file.truncate(0)
            self._file.write(f"{os.getpid()}\n")
            self._file.flush()
            free = shutil.disk_usage(self.path).free
        except OSError as error:
            raise SetupError(
                f"The data folder {self.path} cannot be used: {error.strerror}.",
                next_step="Free space or give rights there, or choose another folder with --data-dir.",
            ) from error
        if free < least_free:
            self.close()
            raise SetupError(
                f"The data folder {self.path} has only {free >> 20} MB free, and a queue needs {least_free >> 20} MB.",
                next_step="Free some space, or choose another folder with --data-dir.",
            )

    @property
    def lock_fd(self) -> int:
        return self._file.fileno()

    @property
    def logs(self) -> Path:
        return self.path / "logs"

    def close(self) -> None:
        self._file.close()

    def _lock(self, wait_s: float) -> None:
        """A short wait covers what is left of a supervisor that was killed a moment ago."""
        give_up_at = time.monotonic() + wait_s
        while True:
            try:
                return fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() > give_up_at:
                    break
            time.sleep(0.05)
        self._file.seek(0)
        holder = self._file.read().strip() or "unknown"
        self._file.close()
        raise SetupError(
            f"The data folder {self.path} is in use by another `headrace up` (process {holder}).",
            next_step="Stop that one, or choose another folder with --data-dir.",
        )
