"""Calls made on another thread."""

import queue
import threading

import pytest

from workers.console.errands import ROOM, Errands


def test_answers_and_errors_come_back() -> None:
    errands = Errands()
    assert errands.run(lambda: 1 + 1, 5.0) == 2
    with pytest.raises(ZeroDivisionError):
        errands.run(lambda: 1 // 0, 5.0)
    assert errands.run(lambda: "still there", 5.0) == "still there"


def test_a_call_that_hangs_keeps_nobody_and_too_many_are_refused() -> None:
    errands = Errands()
    let_go, last = threading.Event(), threading.Event()
    with pytest.raises(TimeoutError):
        errands.run(lambda: let_go.wait(30), 0.01)
    for _ in range(ROOM):
        with pytest.raises(TimeoutError):
            errands.run(last.set, 0.0)
    with pytest.raises(queue.Full):
        errands.run(last.set, 0.0)
    let_go.set()
    assert last.wait(5)
