"""Moto's queues, made safe for threads. Knows how moto keeps messages, and no ledger.

It takes a message out of a queue without the lock under which it puts one in: two calls that meet bring back what was
deleted, lose what was sent, or give one message to both.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any

import pytest
from moto.sqs.models import SQSBackend

_CALLS = ("receive_message", "change_message_visibility", "delete_message")


@contextmanager
def one_call_at_a_time() -> Iterator[None]:
    """On each queue, until the end of the block. A call that waits for messages lets others pass."""
    with pytest.MonkeyPatch.context() as patch:
        for name in _CALLS:
            patch.setattr(SQSBackend, name, _locked(getattr(SQSBackend, name)))
        yield


def _locked(call: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(call)
    def locked(backend: Any, queue_name: str, *args: Any, **kwargs: Any) -> Any:
        with backend.get_queue(queue_name)._messages_lock:
            return call(backend, queue_name, *args, **kwargs)

    return locked
