"""How many may be begun by now: never more than the rate, and no flood after a pause."""

from math import inf, nan
from typing import Any

import pytest

from headrace.client.pace import CATCH_UP_S, LEAST_RATE, Pace
from headrace.contract.errors import InvalidRequest


def begun(rate: float, steps: list[float], most: int = 100) -> list[int]:
    """How many are begun at each of these times, if all that is due is."""
    pace, counts = Pace.of(rate, 0.0), []
    for now in steps:
        count = min(most, pace.due(now))
        pace = pace.took(now, count) if count else pace
        counts.append(count)
    return counts


def test_the_first_is_due_at_once_and_the_others_at_the_rate() -> None:
    assert begun(2.0, [0.0, 0.25, 0.5, 0.75, 1.0, 1.5]) == [1, 0, 1, 0, 1, 1]


def test_what_a_slow_call_missed_is_made_up_for() -> None:
    assert begun(10.0, [0.0, 0.55, 0.6]) == [1, 5, 1]


@pytest.mark.parametrize("rate", [0.01, 1.0, 7.0, 1_000.0])
def test_a_long_pause_is_not_followed_by_a_flood(rate: float) -> None:
    first, after, next_ = begun(rate, [0.0, 600.0, 600.0], most=10**6)
    assert first == 1
    assert after <= rate * CATCH_UP_S + 1
    assert next_ == 0


@pytest.mark.parametrize("rate", [0.3, 3.0, 30.0, 300.0])
def test_never_faster_than_the_rate(rate: float) -> None:
    steps = [place * 0.037 for place in range(1_000)]
    total = 0
    for now, count in zip(steps, begun(rate, steps), strict=True):
        total += count
        assert total <= now * rate + 1.000001
    assert total >= steps[-1] * rate - 1


def test_the_next_one_is_due_when_it_says() -> None:
    pace = Pace.of(4.0, 100.0).took(100.0, 3)
    assert pace.next_at == 100.75
    assert (pace.due(100.74), pace.due(pace.next_at)) == (0, 1)


@pytest.mark.parametrize("rate", [0.0, -1.0, nan, inf, 1e-12, 5e-324, 10**400, "x", None])
def test_a_rate_is_a_number_above_0_and_one_a_day_at_least(rate: Any) -> None:
    with pytest.raises(InvalidRequest, match="rate"):
        Pace.of(rate, 0.0)


def test_the_slowest_and_the_fastest_rate() -> None:
    slowest = Pace.of(LEAST_RATE, 0.0).took(0.0, 1)
    assert slowest.next_at == pytest.approx(86_400)
    assert Pace.of(1e308, 0.0).due(9.0) > 10**300
