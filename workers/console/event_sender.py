"""Carries task events to the broker on a thread of its own. Knows Celery's dispatcher, not what the events mean.

The console is a convenience: when the broker is slow or away events are dropped, and no job ever waits for them.
"""

import contextlib
import queue
import threading
import time
from typing import Any

import structlog
from celery import Celery

from workers.console.job_events import JobEvents, TaskEvent
from workers.inference.facts import Fact

ROOM = 2_000
"""Events that may wait to be sent."""

BATCH = 100
LINGER_S = 0.05
"""Events gather for so long and then leave in one message."""

IDLE_S = 1.0
PAUSE_S = 1.0
AT_ONCE = {"max_retries": 1, "interval_start": 0, "interval_step": 0}
"""kombu would try for ever, and not notice that it is to stop."""

log = structlog.get_logger(__name__)


class EventSender:
    """`tell` is a watcher: it never waits. `start` and `stop` belong to the process that owns the worker.

    `dropped` is roughly how many events never left.
    """

    def __init__(self, room: int = ROOM) -> None:
        self._events = JobEvents()
        self._waiting: queue.Queue[TaskEvent | None] = queue.Queue(room)
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._away = False
        self.dropped = 0

    def tell(self, fact: Fact) -> None:
        event = self._events.of(fact, time.time())
        if event is None:
            return
        try:
            self._waiting.put_nowait(event)
        except queue.Full:
            self.dropped += 1

    @property
    def sending(self) -> bool:
        """Whether its thread is at work."""
        return self._thread is not None and self._thread.is_alive()

    def start(self, app: Celery, hostname: str) -> None:
        """Events carry `hostname` as the node that they come from."""
        self._thread = threading.Thread(target=self._run, args=(app, hostname), name="events", daemon=True)
        self._thread.start()

    def stop(self, timeout_s: float) -> None:
        """What still waits is sent, unless that takes longer than `timeout_s`."""
        self._stopping.set()
        with contextlib.suppress(queue.Full):
            self._waiting.put_nowait(None)  # wakes it; one that has so much to do is awake
        if self._thread is not None:
            self._thread.join(timeout_s)

    def _run(self, app: Celery, hostname: str) -> None:
        while not self._stopping.is_set():
            try:
                with app.connection_for_write(transport_options=AT_ONCE) as connection:
                    self._send_over(_dispatcher(app, connection, hostname))
            except Exception as error:  # noqa: BLE001
                # Whatever it was: the batch in hand is lost, this thread is not, and no job has noticed.
                if not self._away:
                    log.warning("the broker takes no events", reason=str(error))
                self._away = True
                self._stopping.wait(PAUSE_S)

    def _send_over(self, dispatcher: Any) -> None:
        """Until asked to stop and nothing waits, or until the connection fails."""
        while not (self._stopping.is_set() and self._waiting.empty()):
            batch = self._batch()
            if not batch:
                continue
            try:
                for event in batch:
                    dispatcher.send(event.type, timestamp=event.at, **event.fields)
                dispatcher.flush()
            except Exception:
                self.dropped += len(batch)
                raise
            if self._away:
                log.info("events leave again", dropped=self.dropped)
            self._away = False

    def _batch(self) -> list[TaskEvent]:
        """The events of the next moment; none when nothing happened for a while, or when asked to stop."""
        batch: list[TaskEvent | None] = []
        with contextlib.suppress(queue.Empty):
            batch.append(self._waiting.get(timeout=IDLE_S))
            self._stopping.wait(LINGER_S)
            while len(batch) < BATCH:
                batch.append(self._waiting.get_nowait())
        return [event for event in batch if event is not None]


def _dispatcher(app: Celery, connection: Any, hostname: str) -> Any:
    """Keeps what it is given until `flush`, and raises when that fails."""
    return app.events.Dispatcher(
        connection,
        hostname=hostname,
        buffer_while_offline=False,
        buffer_group=frozenset({"task"}),
        buffer_limit=BATCH + 1,
    )
