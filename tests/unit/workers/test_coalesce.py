"""Rule 15 as a table."""

import pytest

from workers.inference.coalesce import Pending, due_at

NOW = float("-inf")


@pytest.mark.parametrize(
    ("pending", "due"),
    [
        (Pending(tokens=0, since=0, sent=9, listeners=1, finished=False), None),
        (Pending(tokens=1, since=5, sent=0, listeners=0, finished=False), NOW),
        (Pending(tokens=7, since=5, sent=1, listeners=1, finished=False), 5.05),
        (Pending(tokens=8, since=5, sent=1, listeners=1, finished=False), NOW),
        (Pending(tokens=8, since=5, sent=1, listeners=0, finished=False), 6.0),
        (Pending(tokens=63, since=5, sent=1, listeners=0, finished=False), 6.0),
        (Pending(tokens=64, since=5, sent=1, listeners=0, finished=False), NOW),
        (Pending(tokens=0, since=5, sent=3, listeners=0, finished=True), NOW),
    ],
)
def test_when_tokens_are_due(pending: Pending, due: float | None) -> None:
    assert due_at(pending) == due
