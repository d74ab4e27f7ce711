"""The folder that pulled models lie in: its lock, its space, its errors, and the pins that say what a name meant.

Knows no source. A pin is written last, so that a model is here when its pin is.
"""

import fcntl
import hashlib
import json
import os
import re
import secrets
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO

from headrace.contract.errors import SetupError

_LOCK_WAIT_S = 1800.0
_PINS = "pins"

Progress = Callable[[str, int, int], None]
"""Called with what is being done, and how many bytes of how many are."""


@dataclass(frozen=True, slots=True)
class Pin:
    """What a name meant when it was pulled. `file` is relative to the folder; `revision` a commit or an ETag."""

    name: str
    id: str
    file: str
    size: int
    sha256: str
    revision: str
    licence: str = ""


def read_pin(models_dir: Path, name: str) -> Pin | None:
    """What was pulled under this name; None when nothing was, or its pin cannot be read."""
    return _read(_pin_path(models_dir, name))


def write_pin(models_dir: Path, pin: Pin) -> None:
    path = _pin_path(models_dir, pin.name)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{secrets.token_hex(8)}")
    part.write_text(json.dumps(asdict(pin), indent=1), "utf-8")
    os.replace(part, path)


def pins(models_dir: Path) -> list[Pin]:
    """Everything that was pulled by a name of its own, by that name."""
    found = (_read(path) for path in (models_dir / _PINS).glob("*.json"))
    return sorted((pin for pin in found if pin is not None), key=lambda pin: pin.name)


def slug(name: str) -> str:
    """A file name that shows what it is of, and is another for another name."""
    shown = re.sub(r"[^A-Za-z0-9.-]+", "-", name.partition(":")[2]).strip("-.")[-100:]
    return f"{shown}-{hashlib.sha256(name.encode()).hexdigest()[:10]}"


def size_of(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except OSError:
        return None


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def need_gguf(path: Path, what: str) -> None:
    """Raises SetupError for a file that does not begin as GGUF does; it is deleted."""
    with path.open("rb") as file:
        if file.read(4) == b"GGUF":
            return
    path.unlink()
    raise SetupError(f"{what} is no GGUF file.", next_step="This version loads GGUF only.")


def need_space(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise SetupError(
            f"{folder} has {free >> 20} MB free, and pulling needs {needed >> 20} MB.",
            next_step="Free some space, or choose another folder with HEADRACE_PATHS__MODELS_DIR.",
        )


@contextmanager
def explained(models_dir: Path) -> Iterator[None]:
    """Errors of the file system as one line with a next step."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise SetupError(
            f"The models folder {models_dir} cannot be used: {reason}.",
            next_step="Free space or give rights there, or choose another folder with HEADRACE_PATHS__MODELS_DIR.",
        ) from error


@contextmanager
def locked(path: Path, progress: Progress) -> Iterator[None]:
    """One pull at a time; the lock goes with the process that holds it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        _wait_for(file, path, progress)
        yield  # closing the file gives the lock back, and so does dying


def _wait_for(file: BinaryIO, path: Path, progress: Progress) -> None:
    give_up_at = time.monotonic() + _LOCK_WAIT_S
    while True:
        try:
            return fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > give_up_at:
                raise SetupError(
                    f"Another pull has held {path} for {_LOCK_WAIT_S / 60:.0f} minutes.",
                    next_step="End that process, then pull again.",
                ) from None
        progress("waiting for another pull", 0, 0)
        time.sleep(0.1)


def _pin_path(models_dir: Path, name: str) -> Path:
    return models_dir / _PINS / f"{slug(name)}.json"


def _read(path: Path) -> Pin | None:
    try:
        fields = json.loads(path.read_text("utf-8"))
        return Pin(**{name: fields[name] for name in Pin.__dataclass_fields__ if name in fields})
    except (OSError, ValueError, TypeError):
        return None
