"""What a worker says of itself: its model's card when the engine is ready, and a beat every second. Knows no jobs."""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from headrace.contract.errors import StoreUnavailable
from headrace.store.beats import Beat, drop_beat, write_beat
from headrace.store.cards import write_card
from headrace.telemetry.metrics import Recorder
from workers.inference.card import make_card
from workers.inference.holdings import Holdings
from workers.inference.messages import Ready
from workers.inference.metrics import tokens_per_second

ANNOUNCE_S = 60.0


@dataclass(frozen=True, slots=True)
class HeartbeatParts:
    """`client` is the store's; `step_age_s` answers how long the engine has not stepped, None while it is idle;
    `paused` whether nothing is to be claimed."""

    worker: str
    lane: str
    model_id: str
    release: str
    client: Any
    holdings: Holdings
    metrics: Recorder
    step_age_s: Callable[[], float | None]
    paused: Callable[[], bool] = lambda: False


class Heartbeat:
    """`beat` belongs to one ticker; the others only set what it says next."""

    def __init__(self, parts: HeartbeatParts) -> None:
        self._parts = parts
        self._ready: Ready | None = None
        self._announced: Ready | None = None
        self._announced_at = 0.0
        self._draining = False
        self._away = False

    def ready(self, ready: Ready) -> None:
        """The engine is ready: the next beat announces the model first."""
        self._ready = ready

    def draining(self) -> None:
        self._draining = True

    @property
    def state(self) -> str:
        """What the beat says: starting, ready, paused or draining."""
        if self._draining:
            return "draining"
        if self._ready is None:
            return "starting"
        return "paused" if self._parts.paused() else "ready"

    def beat(self) -> None:
        """Raises StoreUnavailable. A store that was away may have lost the card, so it is announced again."""
        ready = self._ready
        try:
            if ready is not None and self._must_announce(ready):
                self._announce(ready)
            write_beat(self._parts.client, self._current(ready))
            self._away = False
        except StoreUnavailable:
            self._announced = None
            if not self._away:
                self._parts.metrics.add("headrace_worker_store_outages_total")
            self._away = True
            raise

    def goodbye(self) -> None:
        """The last word. If it is lost the beat runs out by itself."""
        try:
            drop_beat(self._parts.client, self._parts.worker)
        except StoreUnavailable:
            return

    def _current(self, ready: Ready | None) -> Beat:
        parts, held = self._parts, self._parts.holdings.load().jobs
        parts.metrics.set("headrace_worker_jobs_held", held)
        age_s = parts.step_age_s()
        return Beat(
            worker=parts.worker,
            lane=parts.lane,
            state=self.state,
            revision=ready.facts.revision if ready else "",
            digest=ready.digest if ready else "",
            capacity=ready.kv_tokens if ready else 0,
            held=held,
            step_age_ms=None if age_s is None else round(age_s * 1000),
            metrics=parts.metrics.snapshot(),
        )

    def _must_announce(self, ready: Ready) -> bool:
        """Now and then again: the card promises what the largest of the living can hold, and says how fast it was."""
        return ready is not self._announced or time.monotonic() - self._announced_at > ANNOUNCE_S

    def _announce(self, ready: Ready) -> None:
        parts = self._parts
        card = replace(make_card(parts.model_id, ready), tokens_per_second=tokens_per_second(parts.metrics))
        write_card(parts.client, card, ready.facts.tokenizer_json, release=parts.release)
        self._announced, self._announced_at = ready, time.monotonic()
