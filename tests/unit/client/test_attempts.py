"""The tries of one call: what is an answer, what is tried again, what is raised."""

import json

import pytest

from headrace.client.attempts import Attempts
from headrace.client.core import Broken, Reply
from headrace.client.retry import Patience
from headrace.contract import errors

PATIENCE = Patience(silence_s=10, nobody_s=1, first_delay_s=0.1)


def refusal(status: int, code: str) -> Reply:
    return Reply(status, {}, json.dumps({"error": {"code": code, "message": "no"}}).encode())


def test_a_good_answer_is_handed_on() -> None:
    reply = Reply(202, {}, b"{}")
    assert Attempts("u", PATIENCE, 0.0).judge(reply, 99.0, 0.5) is reply


def test_delays_grow_over_failures_of_any_kind() -> None:
    attempts = Attempts("u", PATIENCE, 0.0)
    failures = Broken("gone"), refusal(503, "queue_full"), refusal(429, "rate_limit_exceeded")
    assert [attempts.judge(failure, 0.0, 0.5) for failure in failures] == [0.1, 0.2, 0.4]


def test_the_last_error_is_raised() -> None:
    attempts = Attempts("http://u", PATIENCE, 0.0)
    with pytest.raises(errors.QueueFull):
        attempts.judge(refusal(503, "queue_full"), 10.0, 0.5)
    with pytest.raises(errors.ModelNotFound):
        attempts.judge(refusal(404, "model_not_found"), 0.0, 0.5)
    with pytest.raises(errors.SetupError, match="http://u: gone"):
        attempts.judge(Broken("gone"), 10.0, 0.5)


def test_nobody_is_waited_for_less_long() -> None:
    with pytest.raises(errors.SetupError):
        Attempts("u", PATIENCE, 0.0).judge(Broken("refused", nobody=True), 1.0, 0.5)
    assert Attempts("u", PATIENCE, 0.0).judge(Broken("refused"), 1.0, 0.5) == 0.1
