"""How many of something may be begun by now, at so many a second. Knows no clock and no connection."""

from dataclasses import dataclass, replace
from math import floor, inf, nan

from headrace.contract.errors import InvalidRequest

CATCH_UP_S = 1.0
"""Time that was lost is made up for as far as this: a pause of minutes is not followed by minutes' worth at once."""


LEAST_RATE = 1 / 86_400
"""One a day. What is slower would never be done."""


@dataclass(frozen=True, slots=True)
class Pace:
    """The next one is due at `next_at`, in seconds of any clock that never goes back."""

    rate: float
    next_at: float

    @classmethod
    def of(cls, rate: float, now: float) -> "Pace":
        """Raises InvalidRequest for what is no number, or less than LEAST_RATE, or endless."""
        try:
            number = float(rate)
        except (TypeError, ValueError, OverflowError):
            number = nan
        if not LEAST_RATE <= number < inf:
            raise InvalidRequest(
                "A rate is a number above 0, of jobs a second, and at least one a day.",
                param="rate",
                next_step="Leave it out for as fast as it goes.",
            )
        return cls(number, now)

    def due(self, now: float) -> int:
        """How many may be begun now."""
        late = min(now - self.next_at, CATCH_UP_S)
        return floor(late * self.rate) + 1 if late >= 0 else 0

    def took(self, now: float, count: int) -> "Pace":
        """The pace once `count` were begun."""
        return replace(self, next_at=max(self.next_at, now - CATCH_UP_S) + count / self.rate)
