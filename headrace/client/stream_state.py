"""Where a reader of a job's events stands: what it has seen, where to go on, when to give up. Knows no connection."""

from enum import Enum

from headrace.client.retry import Failure, Patience
from headrace.contract.events import TERMINAL_TYPES, Delta, Event

_MOST_GAPS = 5


class Verdict(Enum):
    SHOW = "show"
    DROP = "drop"
    """Seen before the connection was cut."""
    GAP = "gap"
    """Something is missing in front of it: read again from the cursor."""


class StreamState:
    """One reader's place in one job's events. Times are seconds of any clock that never goes back.

    `cursor` is the server's opaque word for the place behind the last shown event; empty means from the beginning.
    The server cuts by the cursor; this checks that it did, so that no token is shown twice or skipped.
    """

    def __init__(self, now: float, cursor: str = "") -> None:
        self.cursor = cursor
        self.ended = False
        self._heard_at = now
        self._failures = 0
        self._gaps = 0
        self._seq = 0
        self._next_offset: dict[int, int] = {}
        self._finished: set[int] = set()
        self._whole = not cursor  # a reader that began in the middle cannot know where a choice should begin

    def unread(self) -> None:
        """Something came that is no event: like a hole, worth only so many tries."""
        self._gaps += 1

    def heard(self, now: float) -> None:
        """Bytes came, be it a ping: the server lives."""
        self._heard_at = now

    def silent_s(self, now: float) -> float:
        return now - self._heard_at

    def take(self, event: Event, cursor: str) -> Verdict:
        """Judge an event that arrived with this cursor, and move behind it when it is to be shown."""
        verdict = self._judge_delta(event) if isinstance(event, Delta) else self._judge_other(event)
        if verdict is Verdict.GAP:
            self._gaps += 1
        if verdict is Verdict.SHOW:
            self.cursor = cursor or self.cursor
            self.ended = event.type in TERMINAL_TYPES
            self._seq = max(self._seq, event.seq)
            self._failures = self._gaps = 0
            if isinstance(event, Delta):
                self._next_offset[event.choice] = event.offset + len(event.token_ids)
                if event.finish_reason:
                    self._finished.add(event.choice)
        return verdict

    def cut(self, failure: Failure, patience: Patience, now: float, jitter: float) -> float | None:
        """The connection is gone: seconds until the next one is to be made, or None to give up."""
        self._failures += 1
        if self._gaps > _MOST_GAPS:
            return None
        return patience.delay(failure, self._failures, self.silent_s(now), jitter)

    def _judge_other(self, event: Event) -> Verdict:
        """An end counts whatever its seq: a store that lost its tail numbers what follows anew, and lower."""
        new = not self.ended if event.type in TERMINAL_TYPES else event.seq > self._seq
        return Verdict.SHOW if new else Verdict.DROP

    def _judge_delta(self, delta: Delta) -> Verdict:
        have = self._next_offset.get(delta.choice, 0 if self._whole else delta.offset)
        if delta.offset > have:
            return Verdict.GAP
        if delta.offset == have:
            # A last delta may be empty: its finish_reason came after the tokens were sent.
            return Verdict.SHOW if delta.token_ids or delta.choice not in self._finished else Verdict.DROP
        return Verdict.DROP if delta.offset + len(delta.token_ids) <= have else Verdict.GAP
