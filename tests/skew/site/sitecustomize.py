"""Read by every interpreter that is started with this folder on its path: gives its process a wrong clock.

`CLOCK_SKEW_S` says by how many seconds. What asks for the time of day gets the wrong one; what measures a span does
not, as on a machine whose clock is set wrong.
"""

import datetime
import os
import time
from collections.abc import Callable
from typing import Any

SKEW_S = int(os.environ["CLOCK_SKEW_S"])


class _AnyDatetime(type):
    def __instancecheck__(cls, instance: object) -> bool:
        return isinstance(instance, _TRUE)


class _Skewed(datetime.datetime, metaclass=_AnyDatetime):
    """Makes instances of the true class, so that nobody else notices."""

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        return _TRUE(*args, **kwargs)

    @classmethod
    def now(cls, tz: datetime.tzinfo | None = None) -> Any:
        return _TRUE.now(tz) + datetime.timedelta(seconds=SKEW_S)

    @classmethod
    def today(cls) -> Any:
        return cls.now()

    @classmethod
    def utcnow(cls) -> Any:
        return cls.now(datetime.UTC).replace(tzinfo=None)


def _skewed(clock: Callable[[], Any], skew: int) -> Callable[[], Any]:
    return lambda: clock() + skew


_TRUE = datetime.datetime
datetime.datetime = _Skewed  # type: ignore[misc]
time.time = _skewed(time.time, SKEW_S)
time.time_ns = _skewed(time.time_ns, SKEW_S * 1_000_000_000)
