"""How many workers one lane is to have, as a value. Knows no store, no process and no clock: time is an argument."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

FIRST_GUESS = 100.0
"""Tokens per second of a worker that nobody has measured yet."""

NO_SIGNAL = "no signal"


class Phase(StrEnum):
    """Where one worker of ours is in its life."""

    STARTING = "starting"
    """Capacity to come."""
    READY = "ready"
    PAUSED = "paused"
    """Told to take nothing new: no capacity, but not stopped for that."""
    SILENT = "silent"
    """It runs and has said something before, but its beat is gone."""
    CRASHING = "crashing"
    """It died again and again and has not become ready since: neither capacity nor a reason to start another."""
    LEAVING = "leaving"
    """Asked to drain: neither counted nor asked again, but it still takes a place."""


@dataclass(frozen=True, slots=True)
class Worker:
    """`held` counts the jobs it holds a lease on."""

    name: str
    phase: Phase
    held: int = 0


@dataclass(frozen=True, slots=True)
class Load:
    """What the store said at `at` (seconds of the same clock as `now`): work that waits, work that is held by anybody.

    `tokens_per_s` is what one worker of this lane was measured to do, None before. `others` are ready workers that
    somebody else started.
    """

    at: float
    queued_jobs: int = 0
    queued_tokens: float = 0.0
    held_jobs: int = 0
    held_tokens: float = 0.0
    tokens_per_s: float | None = None
    others: int = 0


@dataclass(frozen=True, slots=True)
class Signals:
    """`load` is None while the store cannot be read."""

    workers: tuple[Worker, ...]
    load: Load | None


@dataclass(frozen=True, slots=True)
class Limits:
    """`target_s` is how long a backlog may take. A backlog counts once it is `patience_s` old, since what a worker
    takes at once is none; work that finds no worker at all counts at once. A load older than `stale_s` is no signal."""

    least: int
    most: int
    idle_s: float = 60.0
    target_s: float = 10.0
    patience_s: float = 1.0
    stale_s: float = 5.0


@dataclass(frozen=True, slots=True)
class ScaleState:
    """Since when: no work at all, work that waits, more workers than needed. None while it is not so."""

    idle_since: float | None = None
    backlog_since: float | None = None
    surplus_since: float | None = None


@dataclass(frozen=True, slots=True)
class ScaleDecision:
    """`wanted` counts workers that are not leaving, those in `drain` no longer among them. Pass `state` in again."""

    wanted: int
    reason: str
    drain: tuple[str, ...]
    state: ScaleState


def decide(signals: Signals, state: ScaleState, limits: Limits, now: float) -> ScaleDecision:
    """Up by need, down one at a time, and no change at all while the signals are missing. `now` only says how old they
    are."""
    present = [worker for worker in signals.workers if worker.phase is not Phase.LEAVING]
    load = signals.load
    if load is None or now - load.at > limits.stale_s or _all_silent(present):
        # The clocks begin again afterwards: an outage is not an idle minute.
        return ScaleDecision(len(present), NO_SIGNAL, (), ScaleState())
    needed, reason = _needed(present, load, limits)
    state = _clocks(state, load, surplus=needed < len(present))
    waited = state.backlog_since is not None and load.at - state.backlog_since >= limits.patience_s
    if not (waited or _nobody(present, load)):
        needed = min(needed, len(present))
    if len(present) < limits.least:
        needed, reason = max(needed, limits.least), "the least there may be"
    if _only_crashing(present):
        needed, reason = min(needed, len(present)), "those there are do not start"
    room = limits.most - len(signals.workers)
    if needed > len(present) and room > 0:
        return ScaleDecision(min(needed, len(present) + room), reason, (), state)
    return _shrunk(signals.workers, present, state, limits, load.at)


def _needed(present: Sequence[Worker], load: Load, limits: Limits) -> tuple[int, str]:
    """Those that work, and as many more as bring the waiting tokens to an end in time, though never more than jobs."""
    busy = sum(worker.held > 0 for worker in present)
    if not load.queued_jobs:
        return max(limits.least, busy), "no work waits"
    rate = load.tokens_per_s or FIRST_GUESS
    more = min(load.queued_jobs, max(1, math.ceil(load.queued_tokens / (rate * limits.target_s))))
    absent = sum(worker.phase in (Phase.PAUSED, Phase.SILENT) and not worker.held for worker in present)
    needed = busy + absent + more
    able = sum(worker.phase in (Phase.READY, Phase.STARTING) for worker in present)
    all_tokens = load.queued_tokens + load.held_tokens
    if able + load.others and all_tokens / (rate * (able + load.others)) <= limits.target_s:
        needed = min(needed, able + absent)
    reason = f"{load.queued_jobs} jobs of about {load.queued_tokens:.0f} tokens wait, at {rate:.0f} tokens/s a worker"
    return max(limits.least, min(needed, limits.most)), reason


def _nobody(present: Sequence[Worker], load: Load) -> bool:
    """Work waits, and nobody is there or coming who might take it."""
    able = any(worker.phase in (Phase.READY, Phase.STARTING) for worker in present)
    return load.queued_jobs > 0 and not able and not load.others


def _clocks(state: ScaleState, load: Load, *, surplus: bool) -> ScaleState:
    """By the readings' own times: what was read once does not last until it is read again."""

    def since(began: float | None, holds: bool) -> float | None:
        return None if not holds else load.at if began is None else began

    return ScaleState(
        idle_since=since(state.idle_since, load.queued_jobs + load.held_jobs == 0),
        backlog_since=since(state.backlog_since, load.queued_jobs > 0),
        surplus_since=since(state.surplus_since, surplus),
    )


def _shrunk(
    workers: Sequence[Worker], present: Sequence[Worker], state: ScaleState, limits: Limits, at: float
) -> ScaleDecision:
    """One less, when it is time and the one before has left; else as it is."""

    def due(since: float | None) -> bool:
        return since is not None and at - since >= limits.idle_s

    count = len(present)
    idle, surplus = due(state.idle_since), due(state.surplus_since)
    if len(workers) > count or count <= limits.least or not (idle or surplus or count > limits.most):
        return ScaleDecision(count, "enough", (), state)
    # A lane without work goes to its least in one go. One with work gives the others their full time again.
    after = state if idle else replace(state, surplus_since=None)
    reason = "idle" if idle else "more than needed" if surplus else "more than there may be"
    return ScaleDecision(count - 1, reason, (_first_to_go(present),), after)


def _first_to_go(present: Sequence[Worker]) -> str:
    """Whoever is of least use; one that holds jobs only when all do, and then the one that gives back the fewest."""
    order = (Phase.CRASHING, Phase.STARTING, Phase.READY, Phase.PAUSED, Phase.SILENT)
    return min(present, key=lambda worker: (worker.held, order.index(worker.phase), worker.name)).name


def _all_silent(present: Sequence[Worker]) -> bool:
    phases = {worker.phase for worker in present}
    return Phase.SILENT in phases and Phase.READY not in phases


def _only_crashing(present: Sequence[Worker]) -> bool:
    phases = {worker.phase for worker in present}
    return Phase.CRASHING in phases and Phase.READY not in phases
