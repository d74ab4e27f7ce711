"""How often jobs are asked for while they are waited for. Knows neither the gateway nor a clock."""

from collections import deque
from collections.abc import Iterable
from typing import Generic, TypeVar

_FIRST_S = 0.05
_LONGEST_S = 1.0
_AT_ONCE = 16
_ROUND_S = 0.25

H = TypeVar("H")


class Polling:
    """The pauses between looks at one job, longer and longer. Times are seconds of a clock that never goes back."""

    def __init__(self, job_id: str, timeout: float | None, now: float) -> None:
        self._job_id = job_id
        self._timeout = timeout
        self._began = now
        self._next = _FIRST_S

    def pause(self, now: float) -> float:
        """Seconds until the next look. Raises TimeoutError when that would be past the limit."""
        pause, self._next = self._next, min(self._next * 1.5, _LONGEST_S)
        if self._timeout is not None and now + pause > self._began + self._timeout:
            raise TimeoutError(f"{self._job_id} has not ended within {self._timeout} s; it goes on.")
        return pause


class Rounds(Generic[H]):
    """Many jobs, some of them asked about in each round, until none is left."""

    def __init__(self, waiting: Iterable[H], timeout: float | None, now: float) -> None:
        self._waiting = deque(waiting)
        self._timeout = timeout
        self._began = now
        self._taken = self._returned = 0

    def take(self) -> list[H]:
        """Whom to ask about now; empty when all have ended."""
        self._taken, self._returned = min(_AT_ONCE, len(self._waiting)), 0
        return [self._waiting.popleft() for _ in range(self._taken)]

    def put_back(self, one: H) -> None:
        """It goes on."""
        self._waiting.append(one)
        self._returned += 1

    def pause(self, now: float) -> float:
        """Seconds until the next round: none while jobs end. Raises TimeoutError past the limit."""
        if self._returned < self._taken or not self._waiting:
            return 0.0
        if self._timeout is not None and now >= self._began + self._timeout:
            raise TimeoutError(f"{len(self._waiting)} jobs have not ended within {self._timeout} s; they go on.")
        return _ROUND_S
