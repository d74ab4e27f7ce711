"""Threads that call one compiled function together, each with its own number; knows no model.

Between two calls they wait without spinning, so an idle engine costs nothing.
"""

import threading
from collections.abc import Callable
from typing import Any

from kernels.cpu.team import forget_items, new_board


class Team:
    """`size` threads, the caller's among them. Call `run` from one thread at a time."""

    def __init__(self, size: int, regions: int) -> None:
        self.size = size
        self._board = new_board(regions)
        self._address = self._board.ctypes.data
        self._work: tuple[Callable[..., None], tuple[Any, ...]] | None = None
        self._calls = [threading.Semaphore(0) for _ in range(size - 1)]
        for number, call in enumerate(self._calls, start=1):
            threading.Thread(target=self._serve, args=(number, call), daemon=True, name=f"engine-{number}").start()

    def run(self, function: Callable[..., None], *arguments: Any) -> None:
        """function(thread, threads, address of the board, *arguments) in every thread; it ends with a barrier."""
        forget_items(self._board)
        self._work = (function, arguments)
        for call in self._calls:
            call.release()
        function(0, self.size, self._address, *arguments)

    def _serve(self, number: int, call: threading.Semaphore) -> None:
        while True:
            call.acquire()
            assert self._work is not None
            function, arguments = self._work
            function(number, self.size, self._address, *arguments)
