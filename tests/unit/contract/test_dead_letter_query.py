"""Which dead letters pass a filter, and where a walk through them stands."""

from dataclasses import replace

import pytest

from headrace.contract.dead_letter_query import DeadLetterFilter, Place, workers_of
from headrace.contract.errors import ErrorInfo, InvalidRequest
from headrace.contract.generation import FrozenRequest, Sampling
from headrace.contract.job import Job, JobClass, Kind, Past, State

LETTER = Job(
    id="job_01m84znm51ej96e0s4hjxzhrgf",
    model="org/m",
    lane="org/m@canary",
    revision="r1",
    job_class=JobClass.BATCH,
    kind=Kind.CHAT,
    request=FrozenRequest((1, 2), Sampling(seed=1), 8),
    tenant="acme",
    state=State.DEAD,
    ended_at=1_000,
    error=ErrorInfo("retries_exhausted", "Gave up."),
    history=(
        Past(1, "w_1", "engine_error", "It broke.", 700, 3),
        Past(2, "w_2", "no_progress", "It stood.", 800, 3),
        Past(3, "w_1", "worker_died", "", 900, 4),
    ),
    metadata={"row": "7", "batch": "2"},
)


@pytest.mark.parametrize(
    "wanted",
    [
        DeadLetterFilter(),
        DeadLetterFilter(model="org/m"),
        DeadLetterFilter(lane="org/m@canary"),
        DeadLetterFilter(tenant="acme"),
        DeadLetterFilter(code="retries_exhausted"),
        DeadLetterFilter(code="no_progress"),
        DeadLetterFilter(since=1_000, until=1_000),
        DeadLetterFilter(metadata={"row": "7"}),
        DeadLetterFilter(ids=(LETTER.id,), model="org/m"),
    ],
)
def test_what_passes(wanted: DeadLetterFilter) -> None:
    assert wanted.takes(LETTER)
    assert wanted.takes_lane(LETTER.lane)
    assert wanted.is_empty == (wanted == DeadLetterFilter())


@pytest.mark.parametrize(
    "wanted",
    [
        DeadLetterFilter(model="org/n"),
        DeadLetterFilter(model="m"),
        DeadLetterFilter(lane="org/m@stable"),
        DeadLetterFilter(tenant="default"),
        DeadLetterFilter(code="poison"),
        DeadLetterFilter(since=1_001),
        DeadLetterFilter(until=999),
        DeadLetterFilter(metadata={"row": "7", "batch": "3"}),
        DeadLetterFilter(metadata={"other": "7"}),
    ],
)
def test_what_does_not(wanted: DeadLetterFilter) -> None:
    assert not wanted.takes(LETTER)
    assert not wanted.is_empty


def test_as_of_a_moment_nothing_that_died_later_passes_nor_a_redrive_made_since() -> None:
    """Redriven and dead again may be one millisecond's work."""
    then, before = DeadLetterFilter().as_of(1_000), DeadLetterFilter().as_of(999)
    again = replace(LETTER, redrive_of="job_x", created_at=1_000)
    assert then.takes(LETTER)
    assert then.takes(replace(again, created_at=999))
    assert not then.takes(again)
    assert not before.takes(LETTER)
    assert DeadLetterFilter(until=5).as_of(1_000).until == 5
    assert DeadLetterFilter(until=5_000).as_of(1_000).until == 1_000


def test_each_worker_is_named_once() -> None:
    assert workers_of(LETTER) == ("w_1", "w_2")
    assert workers_of(replace(LETTER, history=())) == ()


def test_a_place_is_written_and_read() -> None:
    place = Place.of(LETTER)
    assert Place.parse(str(place)) == place
    walked = replace(place, began=2_000)
    assert str(walked) == f"{place}.2000"
    assert (Place.parse(str(walked)).began, Place.parse(str(place)).began) == (2_000, None)
    later = Place(1_001, "job_00000000000000000000000000")
    assert place < later < Place(1_001, LETTER.id)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "1000",
        f"-1.{LETTER.id}",
        "1000.job_1",
        f"1000.{LETTER.id}x",
        f"x.{LETTER.id}",
        f"1000.{LETTER.id}.",
        f"1000.{LETTER.id}.x",
    ],
)
def test_what_is_no_place(text: str) -> None:
    with pytest.raises(InvalidRequest, match="cursor"):
        Place.parse(text)
