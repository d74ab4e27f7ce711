"""The tries of one call: what is an answer, what is tried again, what is raised."""

import json
from dataclasses import replace

import pytest

from headrace.client.attempts import Attempts
from headrace.client.core import IDEMPOTENCY_KEY, Broken, Call, Outcome, Reply
from headrace.client.gateways import Gateways
from headrace.client.retry import Patience
from headrace.contract import errors

PATIENCE = Patience(silence_s=10, nobody_s=1, first_delay_s=0.1)


GET = Call("GET", "/v1/models")
POST = Call("POST", "/v1/jobs")
KEYED = Call("POST", "/v1/jobs", {IDEMPOTENCY_KEY: "k"})


def attempts_at(*urls: str, call: Call = GET) -> Attempts:
    return Attempts(Gateways(urls), call, PATIENCE, 0.0)


def refusal(status: int, code: str) -> Reply:
    return Reply(status, {}, json.dumps({"error": {"code": code, "message": "no"}}).encode())


def test_a_good_answer_is_handed_on() -> None:
    reply = Reply(202, {}, b"{}")
    assert attempts_at("u").judge(reply, 99.0, 0.5) is reply


def test_delays_grow_over_failures_of_any_kind() -> None:
    attempts = attempts_at("u")
    failures = Broken("gone"), refusal(503, "queue_full"), refusal(429, "rate_limit_exceeded")
    assert [attempts.judge(failure, 0.0, 0.5) for failure in failures] == [0.1, 0.2, 0.4]


def test_the_last_error_is_raised() -> None:
    attempts = attempts_at("http://u")
    with pytest.raises(errors.QueueFull):
        attempts.judge(refusal(503, "queue_full"), 10.0, 0.5)
    with pytest.raises(errors.ModelNotFound):
        attempts.judge(refusal(404, "model_not_found"), 0.0, 0.5)
    with pytest.raises(errors.SetupError, match="http://u: gone"):
        attempts.judge(Broken("gone"), 10.0, 0.5)


def test_nobody_is_waited_for_less_long() -> None:
    with pytest.raises(errors.SetupError):
        attempts_at("u").judge(Broken("refused", nobody=True), 1.0, 0.5)
    assert attempts_at("u").judge(Broken("refused"), 1.0, 0.5) == 0.1


def test_each_gateway_is_asked_before_there_is_a_pause() -> None:
    attempts = attempts_at("a", "b", "c")
    asked, pauses = [], []
    failures: list[Outcome] = [Broken("gone"), *(refusal(status, "store_unavailable") for status in (502, 503, 504))]
    for failure in failures:
        asked.append(attempts.url)
        pauses.append(attempts.judge(failure, 0.0, 0.5))
    assert (asked, pauses) == (["a", "b", "c", "a"], [0.0, 0.0, 0.1, 0.0])


def test_even_without_patience_each_gateway_is_asked_once() -> None:
    attempts = attempts_at("a", "b")
    assert attempts.judge(Broken("gone"), 99.0, 0.5) == 0.0
    with pytest.raises(errors.SetupError, match="a or b: gone"):
        attempts.judge(Broken("gone"), 99.0, 0.5)


def test_what_is_no_fault_of_a_gateway_stays_with_it() -> None:
    attempts = attempts_at("a", "b")
    for status in (429, 500):
        assert attempts.judge(refusal(status, "c"), 0.0, 0.5) in (0.1, 0.2)
        assert attempts.url == "a"
    final = Reply(504, {"x-should-retry": "false"}, b"{}")
    with pytest.raises(errors.HeadraceError):
        attempts.judge(final, 0.0, 0.5)


def test_a_gateway_that_was_left_is_not_begun_with() -> None:
    gateways = Gateways(["a", "b", "c"])
    first, second = (Attempts(gateways, GET, PATIENCE, 0.0) for _ in range(2))
    first.judge(Broken("gone"), 0.0, 0.5)
    assert (first.url, second.url, Attempts(gateways, GET, PATIENCE, 0.0).url) == ("b", "a", "b")
    first.judge(Broken("gone"), 0.0, 0.5)
    second.judge(Broken("gone"), 0.0, 0.5)
    assert (first.url, second.url) == ("c", "c")


@pytest.mark.parametrize(
    ("outcome", "repeated"),
    [
        (Broken("refused", refused=True), True),
        (refusal(429, "rate_limit_exceeded"), True),
        (Broken("cut"), False),
        (refusal(503, "store_unavailable"), False),
        (refusal(500, "internal_error"), False),
    ],
)
def test_what_must_not_be_done_twice_is_only_repeated_where_it_was_not_heard(
    outcome: Broken | Reply, repeated: bool
) -> None:
    for call in (KEYED, replace(POST, idempotent=True)):
        assert attempts_at("a", "b", call=call).judge(outcome, 0.0, 0.5) >= 0.0  # type: ignore[operator]
    without = attempts_at("a", "b", call=POST)
    if repeated:
        assert without.judge(outcome, 0.0, 0.5) >= 0.0  # type: ignore[operator]
    else:
        with pytest.raises(errors.HeadraceError):
            without.judge(outcome, 0.0, 0.5)
