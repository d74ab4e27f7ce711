"""A thread that does one thing every so often. Knows neither what nor why."""

import threading
from collections.abc import Callable

import structlog

from headrace.contract.errors import StoreUnavailable

log = structlog.get_logger(__name__)


class Ticker:
    """Calls `action` every `interval_s` until stopped. A missing store is logged once; the next tick tries again."""

    def __init__(self, name: str, interval_s: float, action: Callable[[], object]) -> None:
        self._name = name
        self._interval_s = interval_s
        self._action = action
        self._away = False
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

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
