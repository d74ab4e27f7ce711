"""Threads that call one compiled function together, each with its own number; knows no model.

After a call they wait for the next one for a moment, and then sleep: an idle engine costs nothing.
"""

import contextlib
import os
import threading
from collections.abc import Callable, Iterator
from typing import Any

from kernels.cpu.team import call_team, forget_items, linger, new_board


class Team:
    """`size` threads, the caller's among them, with a counter of items for each in each of a step's regions.

    Call `run` from one thread at a time."""

    def __init__(self, size: int, regions: int) -> None:
        self.size = size
        self._board = new_board(size * regions)
        self._address = self._board.ctypes.data
        self._work: tuple[Callable[..., None], tuple[Any, ...]] | None = None
        self._cores = _cores_for(size)
        if size > 1:
            linger(self._address, -1)  # compiled here, where an error is heard of, and not in a thread of its own
        self._calls = [threading.Semaphore(0) for _ in range(size - 1)]
        for number, call in enumerate(self._calls, start=1):
            threading.Thread(target=self._serve, args=(number, call), daemon=True, name=f"engine-{number}").start()

    def run(self, function: Callable[..., None], *arguments: Any) -> None:
        """function(thread, threads, address of the board, *arguments) in every thread. Behind its last barrier only
        thread 0, the caller's, may go on."""
        forget_items(self._board)
        self._work = (function, arguments)
        with self._on_first_core():
            for call in self._calls:
                call.release()
            call_team(self._board)
            function(0, self.size, self._address, *arguments)

    def _serve(self, number: int, call: threading.Semaphore) -> None:
        if self._cores:
            os.sched_setaffinity(0, {self._cores[number]})
        calls = 0
        while True:
            linger(self._address, calls)
            calls += 1
            call.acquire()
            assert self._work is not None
            function, arguments = self._work
            function(number, self.size, self._address, *arguments)

    @contextlib.contextmanager
    def _on_first_core(self) -> Iterator[None]:
        """The caller's thread is not ours: it stays where it was free to go before."""
        if not self._cores:
            yield
            return
        before = os.sched_getaffinity(0)
        os.sched_setaffinity(0, {self._cores[0]})
        try:
            yield
        finally:
            os.sched_setaffinity(0, before)


def _cores_for(size: int) -> tuple[int, ...]:
    """A core for each thread of a team that takes all there are, none otherwise.

    Linux likes to wake a thread on the core of whoever woke it, and then two of a team share one: half the speed, seen
    in every other run. A smaller team is not bound: other processes' teams would be bound to the same cores.
    """
    if not hasattr(os, "sched_getaffinity"):
        return ()
    available = sorted(os.sched_getaffinity(0))
    return tuple(available) if 1 < size == len(available) else ()
