"""Log lines are JSON whatever is logged: a line that cannot be written would hide what it was about."""

import io
import json
import logging
from collections.abc import Iterator

import pytest
import structlog

from headrace.settings import LogSettings
from headrace.telemetry import logs


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    root, config = logging.getLogger(), structlog.get_config()
    handlers, level = list(root.handlers), root.level
    stream = io.StringIO()
    logs.configure(LogSettings(format="json"), role="test", stream=stream)
    yield stream
    root.handlers, root.level = handlers, level
    structlog.configure(**config)
    structlog.contextvars.clear_contextvars()


@pytest.mark.parametrize("value", ["naïve 🙂", "\ud800", 2**70, {1: (2, 3)}, object, float("inf")])
def test_anything_can_be_logged(stream: io.StringIO, value: object) -> None:
    structlog.get_logger("x").info("said", value=value)
    line = json.loads(stream.getvalue())
    assert (line["event"], line["level"], line["role"]) == ("said", "info", "test")
    assert "value" in line
