"""What this process logs while it tests belongs to the report of a failing test, and never to the terminal."""

import logging

import pytest
import structlog


def test_log_lines_are_pytests_and_not_the_terminals(
    caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    with structlog.contextvars.bound_contextvars(request_id="req_1"):
        structlog.get_logger("gateway.envelope").info("gateway.request", path="/x")
    try:
        raise RuntimeError("A fault.")
    except RuntimeError:
        structlog.get_logger("headrace.store").exception("store.failed")
    request, failure = (record.getMessage() for record in caplog.records)
    assert all(word in request for word in ("gateway.request", "path=/x", "request_id=req_1"))
    assert "RuntimeError: A fault." in failure
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("name", ["gateway", "headrace", "workers"])
def test_nothing_is_printed_between_tests(name: str) -> None:
    """Then pytest has no handler at the root, and without any the standard library prints warnings itself."""
    assert any(isinstance(handler, logging.NullHandler) for handler in logging.getLogger(name).handlers)
