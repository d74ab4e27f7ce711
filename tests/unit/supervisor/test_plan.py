"""What is to run: lanes, places, threads, and how a range of workers is said."""

import pytest

from headrace.contract.errors import SetupError
from headrace.settings import EngineSettings, Settings, WorkerSettings
from headrace.supervisor import plan
from headrace.supervisor.plan import Plan, Served, worker_range

TWO = (Served("a", "a=fake:"), Served("b", "b=fake:"))


def test_each_model_has_its_lane_and_its_places() -> None:
    settings = Settings.model_construct(worker=WorkerSettings(release="canary"), engine=EngineSettings())
    wanted = Plan(settings, TWO, least=0, most=2)
    assert list(wanted.lanes().values()) == list(TWO)
    assert wanted.places() == {"a@canary": ("worker-1", "worker-2"), "b@canary": ("worker-3", "worker-4")}
    assert wanted.scales
    assert not Plan(settings, TWO, least=2, most=2).scales


@pytest.mark.parametrize(("cores", "most", "given", "threads"), [(9, 2, None, 2), (2, 4, None, 1), (9, 2, 3, 3)])
def test_all_workers_share_the_cores(
    cores: int, most: int, given: int | None, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan, "_cores", lambda: cores)
    settings = Settings.model_construct(worker=WorkerSettings(), engine=EngineSettings(threads=given))
    assert Plan(settings, TWO, least=1, most=most).threads() == threads


@pytest.mark.parametrize(("text", "expected"), [("1", (1, 1)), ("4", (4, 4)), ("0..4", (0, 4)), ("2..2", (2, 2))])
def test_a_number_or_a_range_of_workers(text: str, expected: tuple[int, int]) -> None:
    assert worker_range(text) == expected


@pytest.mark.parametrize("text", ["0", "3..1", "0..0", "many", "1..", "..4", "-1", ""])
def test_workers_that_serve_nothing_are_refused(text: str) -> None:
    with pytest.raises(SetupError):
        worker_range(text)
