"""Keeps one request's fault from its neighbours: what fails for one row ends that request alone, with a code."""

import logging
from collections.abc import Callable
from typing import Final

from engine.outputs import RequestFailure

_LOG = logging.getLogger(__name__)

# The same tokens on the same numerics give the same row again, so a retry would only fail later.
NOT_FINITE: Final = RequestFailure("engine_error", "the model produced values that are not finite numbers", False)


def contain(request_id: str, work: Callable[[], int]) -> int | RequestFailure:
    """What `work` returns, or why it failed. Goes on to the request's own output as its error."""
    try:
        return work()
    except Exception as error:  # noqa: BLE001  whatever one request's sampling raises, the others of the step go on
        _LOG.exception("request %s failed in sampling", request_id)
        return RequestFailure("engine_error", f"sampling failed: {type(error).__name__}: {error}", False)
