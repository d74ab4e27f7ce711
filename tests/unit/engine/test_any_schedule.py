"""Any schedule, same tokens: random schedules of a small model against solo runs; the long form is the module's own
command."""

from pathlib import Path

import pytest

from tests.unit.engine.any_schedule import AnySchedule, Report, main, wide_model
from tests.unit.engine.drawn_schedule import PAGE_SIZES, SMALL_PAGES, draw


@pytest.mark.parametrize(
    ("backend", "page_sizes", "schedules", "preemptions"), [("auto", PAGE_SIZES, 24, 4), ("torch", SMALL_PAGES, 5, 0)]
)
def test_every_request_has_the_tokens_of_its_solo_run(
    tmp_path: Path, backend: str, page_sizes: tuple[int, ...], schedules: int, preemptions: int
) -> None:
    runs, total = AnySchedule(wide_model(tmp_path), 1, backend, page_sizes), Report()
    for number in range(schedules):
        report = runs.run(number)
        assert report.differing == 0, f"schedule {number}: {report}"
        total += report
    # What they must have gone through for their zero to mean anything.
    assert total.tokens > 50 * schedules, total
    assert total.logprobs > 50 * schedules, total
    assert total.resumes > schedules, total
    assert total.preemptions >= preemptions, total
    assert total.hits > schedules // 2, total
    assert total.most_running >= 12, total
    assert total.widest_step > 64, total


def test_the_driver_says_what_it_compared(tiny: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--model", str(tiny), "--schedules", "1", "--first", "7", "--page-sizes", "16"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    assert '"schedule": 7' in lines[0]
    assert "0 differ" in lines[1]


def test_a_number_is_always_the_same_schedule() -> None:
    assert draw(3, 259) == draw(3, 259) != draw(4, 259)
