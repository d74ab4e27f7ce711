"""Listens to the channels that concern this worker: its lane's wake and its own control. Knows no jobs."""

import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

import redis
import structlog

from headrace.contract.errors import StoreUnavailable
from headrace.store.connection import store_errors
from workers.inference.ticker import OnCrash, WorkerThread

POLL_S = 0.2
PAUSE_S = 1.0
PING_S = 5.0
"""After so much silence the server is asked whether it is there, after twice as much it is not."""

log = structlog.get_logger(__name__)


class Doorbell:
    """One subscription for all channels. A ring while it is away is lost: whoever is woken also looks by itself."""

    def __init__(
        self,
        client: Any,
        handlers: Mapping[str, Callable[[bytes], None]],
        on_crash: OnCrash,
        ping_s: float = PING_S,
    ) -> None:
        self._client = client
        self._ping_s = ping_s
        self._handlers = {channel.encode(): handler for channel, handler in handlers.items()}
        self._stop = threading.Event()
        self._thread = WorkerThread("doorbell", self._run, on_crash)

    def start(self) -> None:
        self._thread.start()

    def stop(self, timeout_s: float) -> None:
        self._stop.set()
        self._thread.join(timeout_s)

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                with store_errors():
                    self._listen()
            except StoreUnavailable as error:
                log.info("subscription lost", reason=error.message)
                self._stop.wait(PAUSE_S)

    def _listen(self) -> None:
        with self._client.pubsub(ignore_subscribe_messages=True) as subscription:
            subscription.subscribe(*self._handlers)
            heard_at = asked_at = time.monotonic()
            while not self._stop.is_set():
                message = subscription.get_message(timeout=POLL_S)
                now = time.monotonic()
                if message is not None:
                    heard_at = asked_at = now
                    if message["type"] == "message":
                        self._handlers[message["channel"]](message["data"])
                elif now - heard_at > 2 * self._ping_s:
                    # A connection whose other end is gone says nothing, for ever.
                    raise redis.exceptions.ConnectionError("Redis has gone silent")
                elif now - asked_at > self._ping_s:
                    subscription.ping()
                    asked_at = now
