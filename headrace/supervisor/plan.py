"""What one `headrace up` runs: models, their lanes, workers of each. Knows names and settings, no process."""

import os
from dataclasses import dataclass

from headrace.contract.errors import SetupError
from headrace.contract.job import lane_of
from headrace.settings import Settings


@dataclass(frozen=True, slots=True)
class Served:
    """A model of the fleet. `id` is what clients call it, `source` what a worker's `worker.model` says."""

    id: str
    source: str


@dataclass(frozen=True, slots=True)
class Plan:
    """`least` and `most` are workers of each model; where they differ the autoscaler chooses."""

    settings: Settings
    models: tuple[Served, ...]
    least: int = 1
    most: int = 1
    echo: bool = False

    @property
    def scales(self) -> bool:
        return self.least < self.most

    def lanes(self) -> dict[str, Served]:
        """In the order in which the models were given."""
        return {lane_of(model.id, self.settings.worker.release): model for model in self.models}

    def places(self) -> dict[str, tuple[str, ...]]:
        """By lane, what its workers may be called: `worker-1` and on, counted through."""
        numbers = {lane: range(i * self.most + 1, (i + 1) * self.most + 1) for i, lane in enumerate(self.lanes())}
        return {lane: tuple(f"worker-{number}" for number in found) for lane, found in numbers.items()}

    def threads(self) -> int:
        """Of each engine. A step waits for its slowest thread, so threads that share a core with anything else cost
        more than they bring: all workers divide the cores between them, less one for gateway, store and parents."""
        return self.settings.engine.threads or max(1, (_cores() - 1) // (self.most * len(self.models)))


@dataclass(frozen=True, slots=True)
class Address:
    """Where a running fleet is reached. `model` is the first of its models."""

    url: str
    redis_url: str
    model: str
    models: tuple[str, ...]


def worker_range(text: str) -> tuple[int, int]:
    """The least and the most workers: `4` is 4 and 4, `0..4` is 0 and 4. Raises SetupError for what serves nothing."""
    least, dots, most = text.partition("..")
    if not least.isdecimal() or (dots and not most.isdecimal()):
        raise SetupError(f"{text!r} is no number of workers.", next_step="Give a number like 2, or a range like 0..4.")
    found = int(least), int(most or least)
    if found[1] < max(found[0], 1):
        raise SetupError(
            f"{text} workers can serve nothing.", next_step="Give at least 1, or a range that goes up, like 0..4."
        )
    return found


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
