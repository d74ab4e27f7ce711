"""The jobs this worker holds: their leases and the budget they take. Knows no queue and no engine.

The one table that several threads look into; it guards itself, and every answer is a value of that moment.
"""

import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from headrace.contract.job import Job, Lease

SOLO_DEATHS = 2
"""From this many deaths on a job runs alone, until it has come past the place where it died (rule 8)."""

SOLO_TOKENS = 16

MOST_RESTING = 256
"""More than that count as running: each keeps its prompt or its result in memory."""


@dataclass(frozen=True, slots=True)
class Held:
    lease: Lease
    kv_tokens: int
    solo: bool
    resting: bool = False


@dataclass(frozen=True, slots=True)
class Load:
    """What is taken, without what rests up to MOST_RESTING. `solo` says that a job runs which must run alone."""

    jobs: int = 0
    kv_tokens: int = 0
    solo: bool = False


def must_run_alone(deaths: int, death_offset: int, offset: int) -> bool:
    """Whether a job at `offset` may still be the one that kills its engine."""
    return deaths >= SOLO_DEATHS and offset < death_offset + SOLO_TOKENS


class Holdings:
    """Which jobs are here. `on_room` is called after each change that makes room, on the thread that made it."""

    def __init__(self, on_room: Callable[[], None]) -> None:
        self._on_room = on_room
        self._lock = threading.Lock()
        self._held: dict[str, Held] = {}

    def take(self, jobs: Iterable[Job]) -> None:
        with self._lock:
            for job in jobs:
                solo = must_run_alone(job.deaths, job.death_offset, sum(job.next_offset))
                self._held[job.id] = Held(job.lease, job.kv_tokens, solo)

    def drop(self, lease: Lease) -> bool:
        """Forget a lease. False when it was not held, or the job is held under a later lease by now."""
        with self._lock:
            held = self._held.get(lease.job_id)
            if held is None or held.lease != lease:
                return False
            del self._held[lease.job_id]
        self._on_room()
        return True

    def rest(self, lease: Lease) -> None:
        """The job is kept for a while without being run: its lease is renewed, and it takes no room."""
        with self._lock:
            held = self._held.get(lease.job_id)
            if held is None or held.lease != lease:
                return
            self._held[lease.job_id] = replace(held, resting=True)
        self._on_room()

    def past_death(self, lease: Lease) -> None:
        """The job has come past the place where it died: others may join it."""
        with self._lock:
            held = self._held.get(lease.job_id)
            if held is None or held.lease != lease or not held.solo:
                return
            self._held[lease.job_id] = replace(held, solo=False)
        self._on_room()

    def leases(self) -> tuple[Lease, ...]:
        with self._lock:
            return tuple(held.lease for held in self._held.values())

    def find(self, job_id: str) -> Lease | None:
        with self._lock:
            held = self._held.get(job_id)
        return held.lease if held else None

    def load(self) -> Load:
        with self._lock:
            held = [item for item in self._held.values() if not item.resting]
            too_many = max(0, len(self._held) - len(held) - MOST_RESTING)
            return Load(len(held) + too_many, sum(item.kv_tokens for item in held), any(item.solo for item in held))
