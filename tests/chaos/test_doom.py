"""Sentences are carried out at the moment that they name, before or after the call, and no other call is changed."""

import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from headrace.contract.events import Delta
from headrace.contract.job import Lease
from headrace.queue.base import Append, Outcome, ReapReply, ReapRequest
from tests.chaos.doom import Doom, Sentence, has_struck
from tests.chaos.doomed_queue import DoomedAsyncQueue, DoomedQueue

WRITES = [Append(Lease(f"job_{n}", "l", 1), (Delta(0, 0, 0, (n,)),)) for n in range(4)]


class Dead(BaseException):
    """Instead of the signal, so that a test lives to tell."""


class Wrapped:
    """A queue that notes what it is told."""

    def __init__(self) -> None:
        self.told: list[Any] = []

    def append(self, writes: Sequence[Append]) -> list[str]:
        self.told.append(len(writes))
        return ["OK"] * len(writes)

    def reap(self, request: ReapRequest) -> ReapReply:
        self.told.append(request.limit)
        return ReapReply(requeued=("job_1",))


class WrappedAsync(Wrapped):
    async def append(self, writes: Sequence[Append]) -> list[str]:  # type: ignore[override]
        return super().append(writes)


@pytest.fixture
def sentenced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, int], Doom]:
    def die(_: int, number: int) -> None:
        assert number == signal.SIGKILL
        raise Dead

    monkeypatch.setattr("tests.chaos.doom.os.kill", die)

    def sentence(point: str, nth: int) -> Doom:
        Sentence(1, point, nth).write(tmp_path / "s")
        return Doom(tmp_path / "s")

    return sentence


def test_the_nth_moment_of_that_name_and_no_other(sentenced: Callable[[str, int], Doom], tmp_path: Path) -> None:
    waiting = sentenced("append.after", 2)
    waiting.at("append.after")
    waiting.at("append.before")
    assert not has_struck(tmp_path / "s", 1)
    with pytest.raises(Dead):
        waiting.at("append.after")
    assert has_struck(tmp_path / "s", 1)
    successor = Doom(tmp_path / "s")
    successor.at("append.after")
    successor.at("append.after")


def test_a_new_sentence_is_counted_anew_and_without_one_nobody_dies(
    sentenced: Callable[[str, int], Doom], tmp_path: Path
) -> None:
    waiting = sentenced("relay", 2)
    waiting.at("relay")
    Sentence(2, "relay", 2).write(tmp_path / "s")
    waiting.at("relay")
    (tmp_path / "s").unlink()
    waiting.at("relay")


@pytest.mark.parametrize(
    ("point", "told"), [("append.before", []), ("append.middle", [2]), ("append.after", [4]), ("append.lost", [])]
)
def test_what_was_sent_when_it_died(sentenced: Callable[[str, int], Doom], point: str, told: list[int]) -> None:
    wrapped = Wrapped()
    queue = DoomedQueue(wrapped, sentenced(point, 1))
    if point == "append.lost":
        assert [reply.outcome for reply in queue.append(WRITES)] == [Outcome.OK] * 4
    else:
        with pytest.raises(Dead):
            queue.append(WRITES)
    assert wrapped.told == told


def test_a_sweep_dies_with_one_job_back_and_the_others_not(sentenced: Callable[[str, int], Doom]) -> None:
    wrapped = Wrapped()
    with pytest.raises(Dead):
        DoomedQueue(wrapped, sentenced("reap.middle", 1)).reap(ReapRequest())
    assert wrapped.told == [1]


def test_taking_back_what_a_dead_engine_held_is_no_sweep(sentenced: Callable[[str, int], Doom]) -> None:
    wrapped = Wrapped()
    DoomedQueue(wrapped, sentenced("reap.before", 1)).reap(ReapRequest(worker="w_a", died=True))
    assert wrapped.told == [ReapRequest().limit]


async def test_the_same_awaited(sentenced: Callable[[str, int], Doom]) -> None:
    wrapped = WrappedAsync()
    queue = DoomedAsyncQueue(wrapped, sentenced("append.after", 2))
    assert await queue.append(WRITES) == ["OK"] * 4
    with pytest.raises(Dead):
        await queue.append(WRITES)
    assert wrapped.told == [4, 4]
