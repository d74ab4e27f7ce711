"""What becomes of a delta, and what a job is thought to need."""

import pytest

from headrace.contract.events import Delta, Started
from headrace.contract.generation import FrozenRequest, Sampling
from headrace.contract.job import Job, JobClass, Kind
from headrace.queue.rules import Verdict, estimate, judge, largest, moved

JOURNAL = (Started(2, 1, "w", "r", "d"), Delta(3, 0, 0, (1, 2)), Delta(4, 1, 0, (9,)), Delta(5, 0, 2, (3,)))


@pytest.mark.parametrize(
    ("offset", "ids", "finish", "verdict"),
    [
        (3, (4, 5), None, Verdict.NEW),
        (3, (), "stop", Verdict.NEW),
        (3, (), None, Verdict.REPEAT),
        (0, (1, 2, 3), None, Verdict.REPEAT),
        (1, (2,), None, Verdict.REPEAT),
        (1, (9,), None, Verdict.DIVERGED),
        (2, (3, 4), None, Verdict.GAP),
        (4, (5,), None, Verdict.GAP),
        (2, (3,), "stop", Verdict.GAP),
    ],
)
def test_a_delta_of_an_open_choice(offset: int, ids: tuple[int, ...], finish: str | None, verdict: Verdict) -> None:
    assert judge(Delta(0, 0, offset, ids, "", finish), (3, 1), ("", ""), JOURNAL) is verdict


@pytest.mark.parametrize(
    ("offset", "ids", "finish", "verdict"),
    [
        (2, (3,), "stop", Verdict.REPEAT),
        (2, (3,), None, Verdict.REPEAT),
        (3, (), "stop", Verdict.REPEAT),
        (3, (), "length", Verdict.DIVERGED),
        (3, (4,), None, Verdict.DIVERGED),
        (2, (3, 4), None, Verdict.DIVERGED),
    ],
)
def test_a_delta_of_a_finished_choice(offset: int, ids: tuple[int, ...], finish: str | None, verdict: Verdict) -> None:
    assert judge(Delta(0, 0, offset, ids, "", finish), (3, 1), ("stop", ""), JOURNAL) is verdict


def test_a_choice_that_is_not_there() -> None:
    assert judge(Delta(0, 2, 0, (1,)), (3, 1), ("", ""), JOURNAL) is Verdict.DIVERGED


def test_what_a_job_needs() -> None:
    request = FrozenRequest(tuple(range(10)), Sampling(0), 100, n=2)
    job = Job("j", "m", "m@s", "r", JobClass.BATCH, Kind.CHAT, request, next_offset=(90, 0))
    assert estimate(job, 20.5) == 10 + 90 + 10 + 21
    assert largest(job) == 210


def test_the_average_moves_an_eighth_of_the_way() -> None:
    assert moved(256.0, 16) == 226.0
    assert moved(10.0, 10) == 10.0
