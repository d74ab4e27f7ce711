"""Who asks for notices tells once, and bears everything."""

import queue
from collections.abc import Callable

import pytest
import structlog

from workers.notices.base import NoAnswer, Notice, NoticeSource
from workers.notices.watcher import NoticeWatcher

GO = Notice("test", "it is time", 30.0)
LIMIT_S = 10.0
Answer = Notice | Exception | None


class Script:
    """A source that says what it was given, one after the other, and then nothing for ever."""

    pause_s = 0.0

    def __init__(self, *answers: Answer) -> None:
        self._answers = list(answers)
        self.said: queue.SimpleQueue[Answer] = queue.SimpleQueue()

    def is_here(self) -> bool:
        return True

    def poll(self) -> Notice | None:
        answer = self._answers.pop(0) if self._answers else None
        if not self._answers:
            self.pause_s = LIMIT_S
        self.said.put(answer)
        if isinstance(answer, Exception):
            raise answer
        return answer


class Worker:
    def __init__(self, *, at_work: bool = True) -> None:
        self.at_work = at_work
        self.told: list[Notice | bool] = []

    def watch(self, find: Callable[[], NoticeSource | None], polls: int) -> None:
        """Until so many answers were given."""
        watcher = NoticeWatcher(find, self.told.append, self.told.append, lambda: self.at_work, failed_s=0.0)
        watcher.start()
        source = find()
        for _ in range(polls):
            assert isinstance(source, Script)
            source.said.get(timeout=LIMIT_S)
        watcher.stop()
        watcher.join(LIMIT_S)


def told(*answers: Answer, at_work: bool = True) -> list[Notice | bool]:
    worker, script = Worker(at_work=at_work), Script(*answers, None)
    worker.watch(lambda: script, len(answers))
    return worker.told


def test_a_notice_is_told_once() -> None:
    assert told(None, GO) == [GO]


def test_a_worker_without_work_is_told_too() -> None:
    assert told(None, GO, at_work=False) == [GO]


def test_a_notice_that_stands_at_the_start_keeps_an_idle_worker_from_beginning() -> None:
    assert told(GO, GO, None, None, at_work=False) == [True, False]
    assert told(GO, None, GO, at_work=False) == [True, False, GO]
    assert told(GO, at_work=True) == [GO]


@pytest.mark.parametrize("trouble", [NoAnswer("away"), OSError("odd"), RecursionError("deep"), ValueError()])
def test_trouble_is_borne_and_said_once(trouble: Exception) -> None:
    with structlog.testing.capture_logs() as lines:
        assert told(trouble, trouble, None, trouble, GO) == [GO]
    assert [line["log_level"] for line in lines] == ["warning"] * 3  # twice the trouble, and the notice


def test_no_source_and_a_search_that_fails_end_quietly() -> None:
    def fail() -> None:
        raise RuntimeError("no cloud")

    for find in (lambda: None, fail):
        told: list[Notice | bool] = []
        watcher = NoticeWatcher(find, told.append, told.append, lambda: True)
        watcher.start()
        watcher.join(LIMIT_S)
        assert told == []
