"""Any schedule, same tokens: a hundred random schedules of the tiny model against solo runs, in chunks of seeds."""

from pathlib import Path

import pytest

from tests.unit.engine.any_schedule import AnySchedule, Report, draw, main

CHUNKS = 10
SEEDS_EACH = 10


@pytest.fixture(scope="module")
def runs(tiny: Path) -> AnySchedule:
    return AnySchedule(tiny, threads=1)


@pytest.mark.parametrize("first", range(0, CHUNKS * SEEDS_EACH, SEEDS_EACH))
def test_every_request_has_the_tokens_of_its_solo_run(runs: AnySchedule, first: int) -> None:
    total = Report()
    for seed in range(first, first + SEEDS_EACH):
        report = runs.run(seed)
        assert report.differing == 0, f"seed {seed}: {report}"
        total += report
    # What a chunk must have gone through for its zero to mean anything.
    assert total.tokens > 100
    assert total.logprobs > 100
    assert total.stops > 5
    assert total.preemptions > 0
    assert total.most_running > 1


def test_the_driver_says_what_it_compared(tiny: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--model", str(tiny), "--seeds", "1", "--first-seed", "7", "--threads", "1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    assert '"seed": 7' in lines[0]
    assert '"differing": 0' in lines[1]


def test_a_seed_is_always_the_same_plan() -> None:
    assert draw(3, 259) == draw(3, 259) != draw(4, 259)
