"""The retry decision as a table."""

import pytest

from headrace.contract.errors import GrammarError, NoProgress
from workers.inference.retry import GiveUp, RetryAfter, decide


@pytest.mark.parametrize(
    ("retries", "dice", "in_ms"),
    [(0, 0.0, 1000), (1, 0.0, 2000), (2, 0.0, 4000), (2, 0.5, 4500), (3, 0.0, 4000)],
)
def test_a_retryable_error_waits_longer_each_time(retries: int, dice: float, in_ms: int) -> None:
    error = NoProgress("nothing for 30 s").info()
    assert decide(error, retries, dice) == RetryAfter(in_ms, error)


def test_an_error_that_would_come_again_is_not_retried() -> None:
    error = GrammarError("no such rule").info()
    assert decide(error, 0, 0.0) == GiveUp(error)
