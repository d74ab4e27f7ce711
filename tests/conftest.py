"""One fleet on the real model for all end-to-end and kill tests of a session, each of which leaves it whole; and where
log lines of this process go."""

import logging
import os
from collections.abc import Iterator

import hypothesis
import pytest
import structlog

from tests.e2e.fleet import Fleet, running

# Before any test module brings triton along (transformers does): it decides at import what its interpreter runs.
os.environ["TRITON_INTERPRET"] = "1"

# A busy machine is no fault of an example.
hypothesis.settings.register_profile("shared", deadline=None)
hypothesis.settings.load_profile("shared")


@pytest.fixture(scope="session")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    with running(tmp_path_factory.mktemp("fleet"), model="smollm2-135m-instruct", workers=2) as fleet:
        yield fleet


@pytest.fixture(scope="session", autouse=True)
def _logs_go_to_reports() -> None:
    """pytest shows the log lines of a test that failed. structlog's own printer would write to the terminal whenever a
    thread that lives longer than a test says something between two tests, when nothing is captured."""
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.stdlib.add_log_level,
            structlog.dev.ConsoleRenderer(colors=False, exception_formatter=structlog.dev.plain_traceback),
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
    )
    for name in ("gateway", "headrace", "workers"):
        logger = logging.getLogger(name)
        logger.setLevel(logging.INFO)
        logger.addHandler(logging.NullHandler())  # between tests: else warnings go to standard error as a last resort
