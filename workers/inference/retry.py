"""What becomes of a job whose request failed: again after a pause, or the end. Pure: the dice are an argument."""

from dataclasses import dataclass

from headrace.contract.errors import ErrorInfo

DELAYS_MS = (1_000, 2_000, 4_000)
JITTER = 0.25


@dataclass(frozen=True, slots=True)
class RetryAfter:
    """The queue counts it, and ends the job as dead when it has been counted too often."""

    in_ms: int
    error: ErrorInfo


@dataclass(frozen=True, slots=True)
class GiveUp:
    error: ErrorInfo


RetryDecision = RetryAfter | GiveUp


def decide(error: ErrorInfo, retries: int, dice: float) -> RetryDecision:
    """`retries` is how many were counted so far, `dice` a number in [0, 1) that spreads the jobs of one failure."""
    if not error.retryable:
        return GiveUp(error)
    delay = DELAYS_MS[min(retries, len(DELAYS_MS) - 1)]
    return RetryAfter(round(delay * (1 + JITTER * dice)), error)
