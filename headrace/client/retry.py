"""When to try again, and after how long. Pure values: time is an argument, and nothing here waits."""

from dataclasses import dataclass

_TRY_AGAIN = frozenset({408, 429, 502, 503, 504})
_UNSURE = frozenset({500})
_UNSURE_TRIES = 3


@dataclass(frozen=True, slots=True)
class Failure:
    """A call that did not work. `status` 0 is a connection that could not be made or broke."""

    status: int
    retry_after_s: float | None = None
    final: bool = False
    """It must not be said again: the server said so, or it may have been heard and would do harm when done twice."""
    nobody: bool = False
    """The connection was refused, and nobody ever answered at that address."""


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a client goes on trying. `silence_s` bounds the time without a sign of life, not the whole work.

    `nobody_s` is the shorter time for an address at which nobody has answered yet: a gateway that restarts is worth
    waiting for, one that was never started is not. None means no shorter time.
    """

    silence_s: float = 60.0
    nobody_s: float | None = 5.0
    first_delay_s: float = 0.1
    longest_delay_s: float = 5.0

    def delay(self, failure: Failure, failures: int, silent_s: float, jitter: float) -> float | None:
        """Seconds to wait before the next try, or None to give up.

        `failures` counts this one, from 1, since the last success; `silent_s` is the time since then;
        `jitter` is a random number in [0, 1), so that clients that fell together do not come back together.
        """
        if failure.final or not _worth_trying(failure.status, failures):
            return None
        grown = min(self.longest_delay_s, self.first_delay_s * 2 ** min(failures - 1, 16)) * (0.75 + jitter / 2)
        delay = grown if failure.retry_after_s is None else max(failure.retry_after_s, self.first_delay_s * jitter)
        patience_s = self.silence_s
        if failure.nobody and self.nobody_s is not None:
            patience_s = min(patience_s, self.nobody_s)
        return delay if silent_s + delay <= patience_s else None


def _worth_trying(status: int, failures: int) -> bool:
    return status == 0 or status in _TRY_AGAIN or (status in _UNSURE and failures < _UNSURE_TRIES)
