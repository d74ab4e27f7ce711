import json

import pytest

from gateway.errors import error_of, error_response
from headrace.contract.errors import (
    ContextLengthExceeded,
    ErrorInfo,
    HeadraceError,
    InvalidRequest,
    JobCancelled,
    NoProgress,
    Poison,
    QueueFull,
    RateLimitExceeded,
    StoreUnavailable,
)
from headrace.contract.events import Cancelled, Expired, Failed


def test_the_shape_is_openais() -> None:
    response = error_response(ContextLengthExceeded("Too long.", param="messages", next_step="Cut it."))
    assert response.status_code == 400
    assert json.loads(bytes(response.body)) == {
        "error": {
            "message": "Too long. Cut it.",
            "type": "invalid_request_error",
            "param": "messages",
            "code": "context_length_exceeded",
        }
    }


@pytest.mark.parametrize("error", [InvalidRequest("x"), Poison("x"), HeadraceError("x"), JobCancelled("x")])
def test_a_client_is_told_when_asking_again_is_no_use(error: HeadraceError) -> None:
    assert error_response(error).headers["x-should-retry"] == "false"


@pytest.mark.parametrize(
    ("error", "seconds"),
    [
        (StoreUnavailable("x"), "1"),
        (QueueFull("x", retry_after_s=2.2), "3"),
        (RateLimitExceeded("x", retry_after_s=0.01), "1"),
    ],
)
def test_a_client_is_told_when_to_come_back(error: HeadraceError, seconds: str) -> None:
    headers = error_response(error).headers
    assert headers["retry-after"] == seconds
    assert "x-should-retry" not in headers


def test_other_errors_leave_the_wait_to_the_client() -> None:
    assert "retry-after" not in error_response(NoProgress("x")).headers


def test_a_job_without_an_answer_becomes_an_error_with_a_status() -> None:
    assert error_of(Failed(3, ErrorInfo("context_length_exceeded", "m"))).status == 400
    assert error_of(Failed(3, ErrorInfo("from_the_future", "m"))).status == 500
    assert error_of(Cancelled(3)).code == "cancelled"
    assert error_of(Expired(3)).code == "deadline_exceeded"
