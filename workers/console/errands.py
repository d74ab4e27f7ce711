"""Runs calls that may take long on a thread of their own, for a caller that may not wait. Knows no call by name."""

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

T = TypeVar("T")
ROOM = 100


class Errands:
    """One thread, first come first served, at most `ROOM` in waiting. It ends with the process."""

    def __init__(self) -> None:
        self._waiting: queue.Queue[tuple[Future[Any], Callable[[], Any]]] = queue.Queue(ROOM)
        threading.Thread(target=self._run, name="errands", daemon=True).start()

    def run(self, call: Callable[[], T], patience_s: float) -> T:
        """The call's answer, or what it raised. TimeoutError when that takes longer: the call is made all the same.

        Raises queue.Full, and makes no call, when too many wait already.
        """
        future: Future[T] = Future()
        self._waiting.put_nowait((future, call))
        return future.result(patience_s)

    def _run(self) -> None:
        while True:
            future, call = self._waiting.get()
            try:
                future.set_result(call())
            except Exception as error:  # noqa: BLE001
                # It belongs to whoever asked, or to nobody once they have gone.
                future.set_exception(error)
