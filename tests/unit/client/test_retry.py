"""When to try again: pure values, no clock."""

import pytest

from headrace.client.retry import Failure, Patience

PATIENCE = Patience(silence_s=60, first_delay_s=0.1, longest_delay_s=5)


def test_delays_double_up_to_the_longest() -> None:
    delays = [PATIENCE.delay(Failure(503), failures, 0.0, jitter=0.5) for failures in (1, 2, 3, 9)]
    assert delays == [0.1, 0.2, 0.4, 5.0]


def test_jitter_spreads_by_a_quarter_each_way() -> None:
    assert PATIENCE.delay(Failure(0), 1, 0.0, jitter=0.0) == pytest.approx(0.075)
    assert PATIENCE.delay(Failure(0), 1, 0.0, jitter=0.999) == pytest.approx(0.125, abs=1e-3)


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 410, 413, 422])
def test_what_the_caller_did_wrong_is_not_repeated(status: int) -> None:
    assert PATIENCE.delay(Failure(status), 1, 0.0, 0.5) is None


@pytest.mark.parametrize("status", [0, 408, 429, 502, 503, 504])
def test_what_may_pass_is_repeated(status: int) -> None:
    assert PATIENCE.delay(Failure(status), 50, 0.0, 0.5) is not None


def test_an_internal_error_is_repeated_twice_and_no_more() -> None:
    assert [PATIENCE.delay(Failure(500), n, 0.0, 0.5) is None for n in (1, 2, 3)] == [False, False, True]


def test_the_server_may_ask_for_a_pause() -> None:
    assert PATIENCE.delay(Failure(429, retry_after_s=7.0), 1, 0.0, 0.5) == 7.0


def test_a_pause_longer_than_patience_gives_up_at_once() -> None:
    assert PATIENCE.delay(Failure(503, retry_after_s=61.0), 1, 0.0, 0.5) is None


def test_no_pause_at_all_is_still_spread() -> None:
    assert PATIENCE.delay(Failure(503, retry_after_s=0.0), 1, 0.0, 0.5) == pytest.approx(0.05)


def test_the_server_may_say_that_it_is_final() -> None:
    assert PATIENCE.delay(Failure(503, final=True), 1, 0.0, 0.5) is None


def test_silence_ends_patience() -> None:
    assert PATIENCE.delay(Failure(0), 20, silent_s=59.0, jitter=0.5) is None


def test_an_address_where_nobody_ever_answered_has_its_own_limit() -> None:
    patience = Patience(silence_s=60, nobody_s=1.0)
    assert patience.delay(Failure(0, nobody=True), 1, silent_s=0.5, jitter=0.5) is not None
    assert patience.delay(Failure(0, nobody=True), 1, silent_s=1.0, jitter=0.5) is None
    assert patience.delay(Failure(0), 1, silent_s=1.0, jitter=0.5) is not None
    assert Patience(silence_s=60, nobody_s=None).delay(Failure(0, nobody=True), 1, silent_s=50, jitter=0.5) is not None
