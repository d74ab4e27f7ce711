"""The error tree: every code of the contract has its class, status and retry word. Knows no transport."""

import pytest

from headrace.contract import errors
from headrace.contract.errors import ErrorInfo, HeadraceError, error_class, error_type

CONTRACT = {
    "invalid_request": (400, False),
    "context_length_exceeded": (400, False),
    "unknown_parameter": (400, False),
    "model_not_found": (404, False),
    "job_not_found": (404, False),
    "journal_expired": (410, False),
    "idempotency_conflict": (409, False),
    "payload_too_large": (413, False),
    "invalid_api_key": (401, False),
    "forbidden": (403, False),
    "rate_limit_exceeded": (429, True),
    "queue_full": (503, True),
    "store_unavailable": (503, True),
    "no_progress": (504, True),
    "engine_error": (500, True),
    "grammar_error": (400, False),
    "revision_gone": (409, False),
    "poison": (500, False),
    "retries_exhausted": (500, False),
    "deadline_exceeded": (504, False),
    "cancelled": (499, False),
    "blobs_unavailable": (503, True),
    "ledger_unavailable": (503, True),
    "message_unreadable": (400, False),
    "blob_not_found": (410, False),
    "blob_damaged": (500, False),
}


@pytest.mark.parametrize("code", CONTRACT)
def test_each_code_has_its_status(code: str) -> None:
    cls = error_class(code)
    assert (cls.code, cls.status, cls.retryable) == (code, *CONTRACT[code])


def test_every_class_of_the_tree_can_be_found_by_its_code() -> None:
    classes = [c for c in vars(errors).values() if isinstance(c, type) and issubclass(c, HeadraceError)]
    assert {c.code for c in classes} >= CONTRACT.keys()
    for cls in classes:
        assert error_class(cls.code) is cls


def test_an_error_survives_as_data() -> None:
    error = errors.EngineFailure("the step failed", next_step="Try again.")
    assert error.info() == ErrorInfo("engine_error", "the step failed", True)
    back = error.info().exception()
    assert type(back) is errors.EngineFailure
    assert str(back) == "the step failed"
    assert error.explain() == "the step failed Try again."


def test_a_code_of_a_newer_version_is_still_an_error() -> None:
    assert error_class("from_the_future") is HeadraceError


@pytest.mark.parametrize(
    ("status", "name"),
    [
        (400, "invalid_request_error"),
        (401, "authentication_error"),
        (403, "permission_error"),
        (404, "invalid_request_error"),
        (429, "rate_limit_error"),
        (500, "server_error"),
        (503, "server_error"),
    ],
)
def test_openai_type_follows_the_status(status: int, name: str) -> None:
    assert error_type(status) == name
