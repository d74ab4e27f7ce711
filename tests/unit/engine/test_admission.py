"""Whose turn it is: who waits, in which order they come in, and that nobody waits for ever."""

import pytest

from engine.step_room import StepLimits
from tests.unit.engine.scheduler_bench import PAGE, Bench


def test_running_requests_come_before_waiting_ones() -> None:
    bench = Bench(batched=6)
    bench.add("a", 4)
    assert bench.plan() == {"a": (0, 4)}
    bench.add("b", 9)
    assert bench.plan() == {"a": (4, 5), "b": (0, 5)}
    assert bench.plan() == {"a": (5, 6), "b": (5, 9)}
    bench.add("c", 2)
    assert bench.plan() == {"a": (6, 7), "b": (9, 10), "c": (0, 2)}


def test_waiting_ones_come_by_priority_then_arrival() -> None:
    bench = Bench(seqs=1)
    for name, priority in (("late", 1), ("first", 0), ("second", 0), ("urgent", -1)):
        bench.add(name, 2, max_tokens=1, priority=priority)
    assert [list(bench.plan()) for _ in range(4)] == [["urgent"], ["first"], ["second"], ["late"]]


def test_no_more_run_at_once_than_allowed() -> None:
    bench = Bench(seqs=2)
    for name in "abc":
        bench.add(name, 2)
    bench.step()
    assert (bench.scheduler.running, bench.scheduler.waiting) == (2, 1)


@pytest.mark.parametrize(("pages", "running"), [(95, 2), (96, 1)])
def test_who_runs_keeps_room_to_grow(pages: int, running: int) -> None:
    """Of 100 pages "a" has three, and two stay free."""
    bench = Bench(pages=100)
    bench.add("a", 8)
    bench.step()
    bench.add("b", pages * PAGE)
    bench.step()
    assert bench.scheduler.running == running


def test_nobody_overtakes_the_first_in_line() -> None:
    bench = Bench(pages=4, batched=64)
    bench.add("a", 8)
    bench.step()
    bench.add("large", 12)
    bench.add("small", 1)
    while "a" in bench.scheduler:
        assert set(bench.plan()) == {"a"}
    assert set(bench.plan()) >= {"large"}


def test_a_running_prompt_leaves_a_row_for_each_behind_it() -> None:
    bench = Bench(keys=40)
    bench.add("long", 60)
    bench.plan()
    bench.add("chat", 1, max_tokens=50)
    assert set(bench.plan()) == {"long", "chat"}
    bench.limits = StepLimits(16, 1 << 20)  # now the long prompt could have all
    for _ in range(3):
        seen = bench.plan()
        assert seen["long"][1] - seen["long"][0] == 15
        assert "chat" in seen


def test_a_large_request_gets_in_under_a_stream_of_small_ones() -> None:
    bench = Bench(pages=20, batched=64)
    bench.add("small 0", 6, max_tokens=4)
    bench.add("large", 70, max_tokens=4)
    for number in range(1, 60):
        bench.add(f"small {number}", 6, max_tokens=4)
        if "large" in bench.plan():
            break
    assert number < 10, "small ones are let past the large one"


@pytest.mark.parametrize("classes", [1, 3])
def test_a_low_class_gets_in_under_a_stream_of_high_ones(classes: int) -> None:
    """One class lower is worth 60 s of waiting, so that long it gives way and no longer."""
    bench = Bench(seqs=1)
    bench.add("low", 2, max_tokens=1, priority=classes)
    turns: list[str] = []
    while "low" not in turns:
        bench.add(f"high {bench.now}", 2, max_tokens=1)
        bench.now += 1.0
        turns += bench.plan()
    assert len(turns) == 60 * classes + 1


def test_a_near_deadline_comes_first_in_its_class_and_in_no_other() -> None:
    bench = Bench(seqs=1)
    bench.add("higher", 2, max_tokens=1, priority=-1)
    bench.add("plain", 2, max_tokens=1)
    bench.add("far", 2, max_tokens=1, deadline=600.0)
    bench.add("near", 2, max_tokens=1, deadline=30.0)
    bench.add("nearer", 2, max_tokens=1, deadline=10.0)
    assert [list(bench.plan()) for _ in range(5)] == [["higher"], ["nearer"], ["near"], ["plain"], ["far"]]
