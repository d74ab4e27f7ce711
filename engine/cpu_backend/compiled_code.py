"""Has numba keep compiled code between starts, and knows who compiles what at the very first; knows no kernel.

As a command, `python -m engine.cpu_backend.compiled_code FOLDER` compiles the output layer and the sampler: these and
a step's layers take some ten seconds each, and numba compiles one function at a time in a process.
"""

import contextlib
import functools
import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Final, Self

_PATIENCE_S: Final = 120.0
_LOOK_S: Final = 0.5
_UNUSED_S: Final = 30 * 86_400.0


@functools.cache
def keep_compiled_code(cache: Path) -> str:
    """Has numba keep compiled code in this folder, under a name for all of its sources, and returns that name."""
    from kernels.cpu.compiling import SOURCES, keep_in, kept_in

    keep_in(cache)
    forget_damaged(kept_in())
    forget_unused(kept_in())
    return SOURCES


def forget_unused(folder: Path) -> None:
    """Marks the folder as used, and removes those beside it that no start has used for a month: of other versions."""
    for other in (folder, *folder.parent.glob(f"compiled-{'[0-9a-f]' * 16}")):
        with contextlib.suppress(OSError):  # it is not there yet, or not ours
            if other == folder:
                os.utime(other)
            elif other.stat().st_mtime < time.time() - _UNUSED_S:
                shutil.rmtree(other)


def forget_damaged(folder: Path) -> None:
    """Removes what a full disk or a lost power supply cut off: numba would fail on it at every start.

    What it keeps are pickles, and a whole one ends with a full stop.
    """
    for file in folder.rglob("*.nb[ci]"):
        with contextlib.suppress(OSError):  # another process may have been there first
            with file.open("rb") as kept:
                kept.seek(max(0, file.stat().st_size - 1))
                is_whole = kept.read() == b"."
            if not is_whole:
                file.unlink()


class CompilesAhead:
    """Another process that compiles all but the layers meanwhile, where that is still to be done: a context that ends
    when it has. If it failed, this process compiles when it is asked for."""

    def __init__(self) -> None:
        from kernels.cpu.compiling import kept_in

        kept = kept_in()
        self._process: subprocess.Popen[bytes] | None = None
        if not any(kept.rglob("sampling.*.nbi")):
            command = [sys.executable, "-m", __spec__.name, str(kept.parent)]
            nowhere = subprocess.DEVNULL
            self._process = subprocess.Popen(command, stdin=nowhere, stdout=nowhere, stderr=nowhere)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if self._process is None:
            return
        try:
            self._process.wait(_PATIENCE_S if error is None else 0.0)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def _end_with(parent: int) -> None:
    """Nobody waits for code whose process has gone."""
    while os.getppid() == parent:
        time.sleep(_LOOK_S)
    os._exit(1)


def main() -> None:
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    keep_compiled_code(Path(sys.argv[1]))
    from kernels.cpu.decoder import compile_output

    compile_output()
    from engine.compiled_sampler import CompiledSampler

    CompiledSampler(vocab_size=64, threads=1)


if __name__ == "__main__":
    main()
