"""The leases of a worker as its console shows them: how old, how far. Knows facts, not who asks."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from headrace.contract.job import Job
from workers.inference.facts import Claimed, Delivered, Ended, Fact, Left, Retried


@dataclass(frozen=True, slots=True)
class Row:
    """One lease. `since` is on the board's clock; `tokens` counts what the journal has, earlier attempts included."""

    job_id: str
    attempt: int
    epoch: int
    since: float
    tokens: int


class Board:
    """`tell` is a watcher; `rows` may be asked from any thread."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._rows: dict[tuple[str, int], Row] = {}

    def tell(self, fact: Fact) -> None:
        # By epoch too: the end of one attempt may be told after the claim of the next.
        key = fact.job.id, fact.job.epoch
        with self._lock:
            match fact:
                case Claimed(job):
                    self._rows[key] = Row(job.id, job.attempt, job.epoch, self._clock(), _journaled(job))
                case Delivered(tokens=tokens) if key in self._rows:
                    row = self._rows[key]
                    self._rows[key] = replace(row, tokens=row.tokens + tokens)
                case Retried() | Ended() | Left():
                    self._rows.pop(key, None)

    def rows(self) -> tuple[tuple[Row, float], ...]:
        """Every lease with its age in seconds, oldest first."""
        now = self._clock()
        with self._lock:
            rows = sorted(self._rows.values(), key=lambda row: row.since)
        return tuple((row, now - row.since) for row in rows)


def _journaled(job: Job) -> int:
    return sum(job.next_offset)
