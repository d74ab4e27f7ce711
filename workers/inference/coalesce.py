"""When tokens are due to be journaled (rule 15). Pure: knows counts and times, no queue and no clock."""

from dataclasses import dataclass
from typing import NamedTuple


@dataclass(frozen=True, slots=True)
class Pace:
    """Append when `tokens` have gathered or the oldest has waited `wait_s`."""

    tokens: int
    wait_s: float


WATCHED = Pace(tokens=8, wait_s=0.05)
UNWATCHED = Pace(tokens=64, wait_s=1.0)


class Pending(NamedTuple):
    """What a choice has that its journal lacks. `since` is when the oldest of it came; `sent` what the journal has of
    this attempt."""

    tokens: int
    since: float
    sent: int
    listeners: int
    finished: bool


def due_at(pending: Pending) -> float | None:
    """When to append: a time, `-inf` for at once, None when there is nothing to append.

    The first token of an attempt goes at once, for the sake of the time to it: somebody may have waited since the last
    one ended. So does the end.
    """
    if pending.finished:
        return float("-inf")
    if pending.tokens == 0:
        return None
    pace = WATCHED if pending.listeners > 0 else UNWATCHED
    if pending.sent == 0 or pending.tokens >= pace.tokens:
        return float("-inf")
    return pending.since + pace.wait_s
