"""What the console says of a cancel, and that it never waits for long."""

import threading
import time
from dataclasses import dataclass
from typing import cast

import pytest

from headrace.contract.errors import StoreUnavailable
from headrace.contract.ids import new_job_id
from headrace.contract.job import State
from headrace.queue.base import FinishReply, Outcome
from workers.console.board import Board
from workers.console.console import PATIENCE_S, Console
from workers.inference.worker import InferenceWorker


class Worker:
    """Only what a cancel asks of it."""

    def __init__(self, reply: FinishReply | Exception, hold: bool = False) -> None:
        self._reply = reply
        self.let_go = threading.Event()
        self.asked: list[str] = []
        if not hold:
            self.let_go.set()

    def cancel(self, job_id: str) -> FinishReply:
        assert self.let_go.wait(30)
        self.asked.append(job_id)
        if isinstance(self._reply, Exception):
            raise self._reply
        return self._reply


def console(worker: Worker) -> Console:
    return Console(cast(InferenceWorker, worker), Board())


@pytest.mark.parametrize(
    ("reply", "kind", "said"),
    [
        (FinishReply(Outcome.OK, State.CANCELLED), "ok", "is cancelled"),
        (FinishReply(Outcome.TERMINAL, State.CANCELLED), "ok", "is cancelled"),
        (FinishReply(Outcome.TERMINAL, State.SUCCEEDED), "error", "had ended already: SUCCEEDED"),
        (FinishReply(Outcome.MISSING), "error", "no job"),
        (StoreUnavailable("Redis cannot be reached."), "error", "Redis cannot be reached."),
    ],
)
def test_what_a_cancel_says(reply: FinishReply | Exception, kind: str, said: str) -> None:
    worker, job_id = Worker(reply), new_job_id()
    answer = console(worker).cancel(job_id)
    assert list(answer) == [kind]
    assert said in answer[kind]
    assert worker.asked == [job_id]


def test_a_store_that_hangs_holds_nobody_up_and_the_cancel_is_made_all_the_same() -> None:
    worker, job_id = Worker(FinishReply(Outcome.OK, State.CANCELLED), hold=True), new_job_id()
    asked = console(worker)
    began = time.monotonic()
    assert "not answered yet" in asked.cancel(job_id)["ok"]
    assert time.monotonic() - began < PATIENCE_S + 5
    worker.let_go.set()
    assert "is cancelled" in asked.cancel(new_job_id())["ok"]
    assert worker.asked[0] == job_id


def test_what_is_no_job_id_never_reaches_the_store() -> None:
    worker = Worker(FinishReply(Outcome.MISSING))
    assert "no job id" in console(worker).cancel("job_1 hr:*")["error"]
    assert worker.asked == []


@dataclass(frozen=True)
class UnderNotice:
    """Only what a resume asks of it."""

    stands: bool

    def pause(self, paused: bool) -> bool:
        return paused or self.stands


@pytest.mark.parametrize(("stands", "said"), [(True, "paused still"), (False, "claims again")])
def test_a_resume_says_whether_a_notice_keeps_it_paused(stands: bool, said: str) -> None:
    answer = Console(cast(InferenceWorker, UnderNotice(stands)), Board()).resume()
    assert said in answer["ok"]
