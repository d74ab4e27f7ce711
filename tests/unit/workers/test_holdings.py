"""What a worker holds, and what of it must be alone."""

import pytest

from tests.unit.workers.jobs import make_job
from workers.inference.holdings import MOST_RESTING, Holdings, Load, must_run_alone


@pytest.mark.parametrize(
    ("deaths", "death_offset", "offset", "alone"),
    [(0, 0, 0, False), (1, 50, 50, False), (2, 50, 50, True), (2, 50, 65, True), (2, 50, 66, False), (9, 0, 3, True)],
)
def test_who_must_run_alone(deaths: int, death_offset: int, offset: int, alone: bool) -> None:
    assert must_run_alone(deaths, death_offset, offset) is alone


def test_the_load_is_the_sum_of_what_is_held() -> None:
    holdings = Holdings(on_room=lambda: None)
    holdings.take([make_job("a"), make_job("b", kv_tokens=2, deaths=2)])
    assert holdings.load() == Load(2, 42, solo=True)


def test_room_is_announced_when_something_leaves_and_when_a_lone_job_is_past_its_death() -> None:
    rooms: list[Load] = []
    holdings = Holdings(on_room=lambda: rooms.append(holdings.load()))
    lone, other = make_job("a", deaths=2), make_job("b")
    holdings.take([lone, other])
    holdings.past_death(lone.lease)
    holdings.past_death(lone.lease)
    assert holdings.drop(other.lease)
    assert rooms == [Load(2, 80), Load(1, 40)]


def test_a_later_lease_of_the_same_job_is_not_dropped_with_an_earlier_one() -> None:
    holdings = Holdings(on_room=lambda: None)
    earlier, later = make_job(), make_job(epoch=3, lease_id="l2")
    holdings.take([earlier])
    holdings.take([later])
    assert not holdings.drop(earlier.lease)
    assert holdings.leases() == (later.lease,)
    assert holdings.find(later.id) == later.lease
    assert holdings.find("another") is None


def test_what_rests_takes_no_room_until_too_much_of_it_does() -> None:
    holdings = Holdings(on_room=lambda: None)
    jobs = [make_job(f"j{number}", deaths=2) for number in range(MOST_RESTING + 1)]
    holdings.take(jobs)
    for job in jobs:
        holdings.rest(job.lease)
    assert holdings.load() == Load(jobs=1)
    assert len(holdings.leases()) == len(jobs)
