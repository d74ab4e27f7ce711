"""Where numba keeps compiled code between starts, and who compiles what at the very first; knows no kernel.

As a command, `python -m engine.cpu_backend.compiled_code FOLDER` compiles the sampler: a step and the sampler take
twelve seconds each, and numba compiles one function at a time in a process.
"""

import atexit
import functools
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import Final

_PATIENCE_S: Final = 120.0


@functools.cache
def keep_compiled_code(cache: Path) -> str:
    """Has numba keep compiled code under a name for all of its sources, and returns that name.

    By itself numba compiles a function anew when its own file has changed, but not for a file that it calls into.
    """
    spec = find_spec("kernels.cpu")
    assert spec is not None
    assert spec.origin is not None
    sources = hashlib.sha256()
    for file in sorted(Path(spec.origin).parent.glob("*.py")):
        sources.update(file.read_bytes())
    name = sources.hexdigest()[:16]
    _keep_in(_writable(cache / f"compiled-{name}"))
    return name


class SamplerAhead:
    """Another process that compiles the sampler meanwhile, where that is still to be done. `wait` for it before asking
    for the sampler: if it failed, that compiles in this process."""

    def __init__(self) -> None:
        folder = Path(_kept_in())
        self._process: subprocess.Popen[bytes] | None = None
        if not any(folder.rglob("sampling.*.nbi")):
            command = [sys.executable, "-m", __spec__.name, str(folder)]
            nowhere = subprocess.DEVNULL
            self._process = subprocess.Popen(command, stdin=nowhere, stdout=nowhere, stderr=nowhere)

    def wait(self) -> None:
        if self._process is None:
            return
        try:
            self._process.wait(_PATIENCE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def _writable(folder: Path) -> Path:
    """The folder, or one for this process alone: numba refuses to compile what it is told to keep and cannot."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if os.access(folder, os.W_OK):
            return folder
    except OSError:
        pass
    own = tempfile.mkdtemp(prefix="headrace-compiled-")
    atexit.register(shutil.rmtree, own, ignore_errors=True)
    return Path(own)


def _keep_in(folder: Path) -> None:
    from numba.core import config

    config.CACHE_DIR = str(folder)  # type: ignore[attr-defined]


def _kept_in() -> str:
    from numba.core import config

    folder: str = config.CACHE_DIR  # type: ignore[attr-defined]
    return folder


def main() -> None:
    _keep_in(Path(sys.argv[1]))
    from engine.compiled_sampler import CompiledSampler

    CompiledSampler(vocab_size=64, threads=1)


if __name__ == "__main__":
    main()
