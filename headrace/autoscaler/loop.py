"""The autoscaler at work: hears when work comes, asks the store, decides, has the scaler act. Knows no process.

One thread listens and asks, so that a store that hangs keeps nobody waiting. Deciding and acting stay with the thread
that owns the processes.
"""

import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from headrace.autoscaler.decision import Limits, ScaleState, decide
from headrace.autoscaler.scaler import Scaler
from headrace.autoscaler.signals import Reading, SignalReader, signals_of
from headrace.contract.errors import StoreUnavailable
from headrace.store import keys
from headrace.store.connection import store_errors

_BREATH_S = 0.05
"""Between two readings, however often the bell rings."""

_STOP_S = 6.0


class SignalThread:
    """Reads all lanes when work is queued in one, and every `look_s`. `news` is set whenever there is another reading.

    `connect` makes a client of its own. A ring while the subscription is away is lost; the next look sees the work.
    While readings fail the last one grows old, and an old one is no signal.
    """

    def __init__(
        self, connect: Callable[[], Any], lanes: Sequence[str], look_s: float, say: Callable[[str], None]
    ) -> None:
        self.news = threading.Event()
        self._connect = connect
        self._lanes = tuple(lanes)
        self._look_s = look_s
        self._say = say
        self._trouble = ""
        self._readings: dict[str, Reading] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="autoscaler-signals", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join(_STOP_S)

    def latest(self, lane: str) -> Reading | None:
        """However old; None before the first."""
        return self._readings.get(lane)

    def _run(self) -> None:
        client = self._connect()
        reader = SignalReader(client, self._lanes)
        try:
            while not self._stop.is_set():
                try:
                    with store_errors():
                        self._listen(client, reader)
                except StoreUnavailable:
                    self._stop.wait(self._look_s)
                except Exception as error:  # noqa: BLE001 - what one beat holds must not end the scaling of all lanes
                    self._tell(repr(error))
                    self._stop.wait(self._look_s)
        finally:
            client.close()

    def _listen(self, client: Any, reader: SignalReader) -> None:
        with client.pubsub(ignore_subscribe_messages=True) as subscription:
            subscription.subscribe(*(keys.wake(lane) for lane in self._lanes))
            while not self._stop.is_set():
                began = time.monotonic()
                self._readings = reader.read(began)
                self.news.set()
                self._stop.wait(_BREATH_S)
                self._await_ring(subscription, began + self._look_s)

    def _tell(self, trouble: str) -> None:
        if trouble != self._trouble:
            self._say(f"Workers are neither started nor stopped while the lanes cannot be read: {trouble}")
        self._trouble = trouble

    def _await_ring(self, subscription: Any, until: float) -> None:
        """Until work is queued or it is time to look. What rang meanwhile is one ring."""
        rang = False
        while not rang and not self._stop.is_set() and (left := until - time.monotonic()) > 0:
            rang = subscription.get_message(timeout=min(left, 0.2)) is not None
        while subscription.get_message(timeout=0.0) is not None:
            pass


class Autoscaler:
    """`look` belongs to the thread that owns the processes; call it often. `say` is told of every change."""

    def __init__(self, scaler: Scaler, signals: SignalThread, limits: Limits, say: Callable[[str], None]) -> None:
        self._scaler = scaler
        self._signals = signals
        self._limits = limits
        self._say = say
        self._states: dict[str, ScaleState] = {}
        self._seen: dict[str, frozenset[str]] = {}

    def look(self, lanes: Sequence[str], now: float) -> None:
        """Decide for each lane, and act."""
        for lane in lanes:
            self._scale(lane, now)

    def _scale(self, lane: str, now: float) -> None:
        members, reading = self._scaler.members(lane), self._signals.latest(lane)
        beating = frozenset() if reading is None else reading.beats.keys()
        seen = self._seen.get(lane, frozenset()) & {member.worker_id for member in members}
        decision = decide(signals_of(reading, members, seen), self._states.get(lane, ScaleState()), self._limits, now)
        self._states[lane], self._seen[lane] = decision.state, seen | beating
        there = sum(not member.leaving for member in members)
        if decision.drain:
            self._scaler.drain(lane, decision.drain)
        elif decision.wanted > there:
            self._scaler.start(lane, decision.wanted - there)
        if decision.wanted != there:
            self._say(f"{lane}: {there} → {decision.wanted} workers ({decision.reason})")
