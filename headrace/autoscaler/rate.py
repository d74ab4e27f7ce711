"""Tokens per second of one worker, from the counters in its lane's beats. Knows counters, not who asks for the rate."""

from collections.abc import Mapping
from typing import Any

MEMORY_S = 30.0
"""Seconds of computing after which an older measurement counts little."""

LEAST_S = 0.5
"""Less computing than this says nothing."""

_TOKENS = ("headrace_engine_prefill_tokens_total", "headrace_engine_decoded_tokens_total")
_STEPS = "headrace_engine_step_seconds"


class MovingRate:
    """Tokens computed, prompts included, for each second spent in steps: what a worker does while it has work."""

    def __init__(self) -> None:
        self._before: dict[str, tuple[float, float]] = {}
        self._tokens = 0.0
        self._seconds = 0.0

    def add(self, snapshots: Mapping[str, Mapping[str, Any]]) -> None:
        """The metrics of every worker of the lane as they are now; those that are missing have left."""
        now = {worker: counts for worker, found in snapshots.items() if (counts := _counts(found)) is not None}
        for worker, (tokens, seconds) in now.items():
            tokens_before, seconds_before = self._before.get(worker, (0.0, 0.0))
            self._learn(tokens - tokens_before, seconds - seconds_before)
        self._before = now

    @property
    def per_second(self) -> float | None:
        """None until enough was computed."""
        return self._tokens / self._seconds if self._seconds >= LEAST_S and self._tokens > 0 else None

    def _learn(self, tokens: float, seconds: float) -> None:
        if tokens < 0 or seconds <= 0:
            return
        forget = max(0.0, 1 - seconds / MEMORY_S)
        self._tokens = self._tokens * forget + tokens
        self._seconds = self._seconds * forget + seconds


def _counts(snapshot: Mapping[str, Any]) -> tuple[float, float] | None:
    """Tokens and seconds so far; None for a worker that does not count them."""
    counters, steps = snapshot.get("counters", {}), snapshot.get("histograms", {}).get(_STEPS)
    if steps is None or not any(name in counters for name in _TOKENS):
        return None
    return sum(float(counters.get(name, 0)) for name in _TOKENS), float(steps["sum"])
