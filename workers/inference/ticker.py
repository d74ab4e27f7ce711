"""The worker's threads: each does one thing, and none ends unnoticed. Knows neither what they do nor why."""

import contextvars
import threading
from collections.abc import Callable

import structlog

from headrace.contract.errors import StoreUnavailable

OnCrash = Callable[[str], None]
"""Called with the name of a thread that failed in a way that nobody foresaw."""

log = structlog.get_logger(__name__)


class WorkerThread(threading.Thread):
    """A thread whose unforeseen failure ends the worker in order: its jobs go back, and its supervisor starts another.

    A worker with one thread missing would hold leases and do nothing with them. What its starter has bound to the log
    is bound here too.
    """

    def __init__(self, name: str, action: Callable[[], None], on_crash: OnCrash) -> None:
        super().__init__(name=name, daemon=True)
        self._action = action
        self._on_crash = on_crash
        self._context = contextvars.Context()

    def start(self) -> None:
        self._context = contextvars.copy_context()
        super().start()

    def run(self) -> None:
        self._context.run(self._guarded)

    def _guarded(self) -> None:
        try:
            self._action()
        except Exception:
            log.exception("thread failed, the worker ends", thread=self.name)
            self._on_crash(self.name)


class Ticker:
    """Calls `action` every `interval_s` until stopped. A missing store is logged once; the next tick tries again."""

    def __init__(self, name: str, interval_s: float, action: Callable[[], object], on_crash: OnCrash) -> None:
        self._name = name
        self._interval_s = interval_s
        self._action = action
        self._away = False
        self._stop = threading.Event()
        self._thread = WorkerThread(name, self._run, on_crash)

    def start(self) -> None:
        self._thread.start()

    def stop(self, timeout_s: float) -> None:
        self._stop.set()
        self._thread.join(timeout_s)

    def _run(self) -> None:
        while not self._stop.is_set():
            self._tick()
            self._stop.wait(self._interval_s)

    def _tick(self) -> None:
        try:
            self._action()
            self._away = False
        except StoreUnavailable as error:
            if not self._away:
                log.warning("store is away", during=self._name, reason=error.message)
            self._away = True
