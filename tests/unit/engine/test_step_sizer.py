"""Steps cut by time: machines that are made up, with a clock that is an argument."""

import random
import statistics
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice

import pytest

from engine.step_room import StepLimits, StepRoom
from engine.step_sizer import StepSizer

PAGE, MOST, TARGET = 16, 512, 0.1


@dataclass(frozen=True, slots=True)
class Machine:
    """Seconds of a step, of a row, of a row times a key."""

    base: float
    per_row: float
    per_key: float

    def seconds(self, rows: int, work: int) -> float:
        return self.base + rows * self.per_row + work * self.per_key


FAST = Machine(0.005, 0.0003, 5e-8)
SLOW = Machine(0.03, 0.002, 1e-6)
HUGE = Machine(0.001, 1e-5, 1e-9)
CRAWLING = Machine(0.5, 0.02, 1e-5)


def steps(
    machine: Machine, noise: Callable[[], float] = lambda: 1.0, decodes: int = 0, prompt: int = 4000
) -> Iterator[tuple[int, float]]:
    """Rows of a prompt and seconds of one step after the other: prompts without end, beside some decodes at position
    500. Steps with the rest of a prompt are not shown: they are as short as that is."""
    sizer, position = StepSizer(TARGET, MOST, PAGE), 0
    while True:
        room = StepRoom(sizer.limits(), PAGE)
        for _ in range(decodes):
            room.take(500, 501)
        rows = room.rows(position, prompt - position)
        room.take(position, position + rows)
        work = decodes * 501 + rows * (position + rows)
        position = (position + rows) % prompt
        seconds = machine.seconds(decodes + rows, work) * noise()
        if position:
            yield rows, seconds
        sizer.observe(decodes + rows, work, seconds)


@pytest.mark.parametrize("machine", [FAST, SLOW, HUGE], ids=["fast", "slow", "huge"])
def test_steps_come_to_take_what_they_should_and_no_longer(machine: Machine) -> None:
    seen = list(islice(steps(machine), 300))[20:]
    for rows, seconds in seen:
        assert rows >= PAGE
        assert seconds < TARGET or rows == PAGE
    assert statistics.median(seconds for _, seconds in seen) > 0.7 * TARGET or max(rows for rows, _ in seen) == MOST


@pytest.mark.parametrize("machine", [FAST, SLOW, CRAWLING], ids=["fast", "slow", "crawling"])
def test_it_starts_small_and_grows_by_no_more_than_twice(machine: Machine) -> None:
    sizes = [rows for rows, _ in islice(steps(machine), 10)]
    assert sizes[0] <= 2 * PAGE
    assert all(later <= 2 * max(sizes[: index + 1]) for index, later in enumerate(sizes[1:]))


def test_a_crawling_machine_goes_on_page_by_page() -> None:
    assert {rows for rows, _ in islice(steps(CRAWLING), 5, 60)} == {PAGE}


def test_a_huge_machine_is_cut_by_rows_alone() -> None:
    assert max(rows for rows, _ in islice(steps(HUGE), 30)) == MOST


def test_decodes_leave_the_prompt_what_remains() -> None:
    seen = list(islice(steps(FAST, decodes=32), 200))[20:]
    assert all(seconds < TARGET for _, seconds in seen)
    assert statistics.median(rows for rows, _ in seen) > 2 * PAGE


@pytest.mark.parametrize("seed", range(3))
def test_noise_and_hiccups_do_not_lead_it_astray(seed: int) -> None:
    """A third more or less at each step, and one in twenty takes eight times as long."""
    dice = random.Random(seed)

    def noise() -> float:
        return max(0.3, dice.gauss(1.0, 0.3)) * (8.0 if dice.random() < 0.05 else 1.0)

    quiet = statistics.mean(rows for rows, _ in islice(steps(FAST), 20, 400))
    seen = list(islice(steps(FAST, noise), 400))[20:]
    assert 0.5 * quiet < statistics.mean(rows for rows, _ in seen) < 2 * quiet
    assert statistics.median(seconds for _, seconds in seen) < 1.3 * TARGET


def test_it_follows_a_machine_that_slows_down() -> None:
    sizer = StepSizer(TARGET, MOST, PAGE)
    sizes = []
    for number in range(120):
        rows = max(PAGE, StepRoom(sizer.limits(), PAGE).rows(0, MOST))
        sizes.append(rows)
        machine = FAST if number < 60 else SLOW
        sizer.observe(rows, rows * rows, machine.seconds(rows, rows * rows))
    assert SLOW.seconds(sizes[59], sizes[59] ** 2) > 2 * TARGET
    assert SLOW.seconds(sizes[-1], sizes[-1] ** 2) < TARGET
    assert sizes[70] < sizes[59] / 2, "ten steps are enough to notice"


def test_a_first_step_that_compiles_is_not_believed() -> None:
    sizer = StepSizer(TARGET, MOST, PAGE)
    sizer.observe(2 * PAGE, 1024, 20.0)
    for _ in range(12):
        rows = StepRoom(sizer.limits(), PAGE).rows(0, MOST)
        sizer.observe(rows, rows * rows, FAST.seconds(rows, rows * rows))
    assert rows > 8 * PAGE


def test_rooms_single_rows_and_a_first_page_always_fit() -> None:
    room = StepRoom(StepLimits(40, 100), PAGE)
    room.take(5000, 5001)
    assert room.rows(9000, 1) == 1
    assert room.rows(9000, 500) == PAGE
    room.take(9000, 9000 + PAGE)
    assert room.rows(0, 500) == 0
    assert room.rows(0, 1) == 1
    assert StepRoom(StepLimits(0, 100), PAGE).rows(0, 1) == 0


def test_a_room_keeps_rows_for_others() -> None:
    room = StepRoom(StepLimits(20, 1 << 30), PAGE)
    assert room.rows(0, 100, kept=5) == 15
    assert room.rows(0, 100, kept=50) == 1


@pytest.mark.parametrize("row_keys", [0, 7, 100_000])
@pytest.mark.parametrize("keys", [400, 10_000, 1 << 40])
def test_a_room_gives_the_most_rows_whose_work_fits(keys: int, row_keys: int) -> None:
    room = StepRoom(StepLimits(1 << 20, keys, row_keys), 1)
    rows = room.rows(50, 1 << 20)
    assert rows == 1 or rows * (50 + rows + row_keys) <= keys
    assert rows == 1 << 20 or (rows + 1) * (50 + rows + 1 + row_keys) > keys
