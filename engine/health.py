"""When steps were taken and requests computed, and what that says of an engine; knows times and names, has no clock."""

from collections.abc import Iterable, Set
from dataclasses import dataclass
from typing import Final

_STUCK_S: Final = 30.0


@dataclass(frozen=True, slots=True)
class Health:
    """`step_age_s` is the time since the last step ended, None before the first; `step_running_s` since the one began
    that is under way, None between steps. `stuck` have waited 30 s or longer since they were last computed."""

    step_age_s: float | None
    step_running_s: float | None
    running: int
    waiting: int
    stuck: tuple[str, ...]


class Pulse:
    """All times are seconds of one clock."""

    def __init__(self) -> None:
        self.ended_at: float | None = None
        self._began_at: float | None = None
        self._touched: dict[str, float] = {}

    @property
    def request_ids(self) -> Set[str]:
        return self._touched.keys()

    def meet(self, request_id: str, now: float) -> None:
        """A request came; its patience begins."""
        self._touched[request_id] = now

    def forget(self, request_id: str) -> None:
        self._touched.pop(request_id, None)

    def begin_step(self, now: float) -> None:
        self._began_at = now

    def leave_step(self) -> None:
        """It is under way no more, whether it succeeded or not."""
        self._began_at = None

    def end_step(self, computed: Iterable[str], now: float) -> None:
        """A step succeeded, with something of `computed`, as far as they are still known."""
        for request_id in self._touched.keys() & computed:
            self._touched[request_id] = now
        self.ended_at = now

    def health(self, now: float, running: int, waiting: int) -> Health:
        """May be asked by another thread than the one that steps."""
        ended, began = self.ended_at, self._began_at
        return Health(
            step_age_s=None if ended is None else now - ended,
            step_running_s=None if began is None else now - began,
            running=running,
            waiting=waiting,
            stuck=tuple(name for name, at in tuple(self._touched.items()) if now - at >= _STUCK_S),
        )
