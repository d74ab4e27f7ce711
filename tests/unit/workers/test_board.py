"""The leases that the console shows."""

from headrace.contract.generation import Usage
from headrace.contract.job import State
from headrace.queue.base import Ending
from tests.unit.workers.jobs import make_job
from workers.console.board import Board, Row
from workers.inference.facts import Claimed, Delivered, Ended, Left, Why


class Clock:
    now = 10.0

    def __call__(self) -> float:
        return self.now


def test_rows_grow_old_and_long_and_go() -> None:
    clock = Clock()
    board = Board(clock)
    first, second = make_job("job_1", attempt=2, next_offset=(5,)), make_job("job_2", attempt=1)
    board.tell(Claimed(first))
    clock.now += 2
    board.tell(Claimed(second))
    board.tell(Delivered(first, 8, False))
    clock.now += 1
    assert board.rows() == ((Row("job_1", 2, 1, 10.0, 13), 3.0), (Row("job_2", 1, 1, 12.0, 0), 1.0))
    board.tell(Ended(first, Ending(State.SUCCEEDED, Usage(3, 13)), State.SUCCEEDED))
    board.tell(Left(second, Why.DRAINED))
    assert board.rows() == ()


def test_the_end_of_one_attempt_does_not_hide_the_next() -> None:
    board = Board(Clock())
    board.tell(Claimed(make_job("job_1", epoch=1)))
    board.tell(Claimed(make_job("job_1", epoch=3)))
    board.tell(Left(make_job("job_1", epoch=1), Why.LEASE_LOST))
    assert [row.epoch for row, _ in board.rows()] == [3]
