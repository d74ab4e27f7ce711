"""Runs a function in a process of its own, with a pipe to it. Knows no load."""

import multiprocessing
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

import psutil

_PATIENCE_S = 180.0
_EXIT_S = 5.0


@dataclass(frozen=True, slots=True)
class Beside:
    """The process and our end of its pipe."""

    process: psutil.Process
    pipe: Connection

    def hear(self) -> Any:
        """What it says next. Raises EOFError when it has died, TimeoutError when it says nothing."""
        if not self.pipe.poll(_PATIENCE_S):
            raise TimeoutError("a process of this measurement says nothing")
        return self.pipe.recv()

    def tell(self, what: Any = None) -> None:
        self.pipe.send(what)


@contextmanager
def beside(work: Callable[..., None], *arguments: Any) -> Iterator[Beside]:
    """`work(pipe, *arguments)`, spawned; it is gone when the block is left."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=work, args=(theirs, *arguments), daemon=True)
    process.start()
    theirs.close()
    try:
        assert process.pid is not None
        yield Beside(psutil.Process(process.pid), ours)
    finally:
        ours.close()
        process.join(_EXIT_S)
        process.kill()
        process.join()
