"""How often jobs are asked for: pauses that grow, rounds that come around, and limits."""

import pytest

from headrace.client.waiting import Polling, Rounds


def test_pauses_grow_up_to_a_second() -> None:
    polling = Polling("job", None, now=0.0)
    pauses = [polling.pause(0.0) for _ in range(20)]
    assert pauses == sorted(pauses)
    assert (pauses[0], pauses[-1]) == (0.05, 1.0)


def test_a_pause_that_would_end_behind_the_limit_is_not_begun() -> None:
    polling = Polling("job", 10.0, now=100.0)
    assert polling.pause(109.0) == 0.05
    with pytest.raises(TimeoutError, match="job has not ended"):
        polling.pause(110.0)


def test_every_job_has_its_turn() -> None:
    rounds = Rounds(range(40), None, now=0.0)
    asked: list[int] = []
    for _ in range(3):
        batch = rounds.take()
        assert len(batch) == 16
        asked += batch
        for one in batch:
            rounds.put_back(one)
        assert rounds.pause(0.0) > 0
    assert asked[:40] == list(range(40))


def test_no_pause_while_jobs_end_and_none_when_all_have() -> None:
    rounds = Rounds("ab", 0.0, now=0.0)
    rounds.put_back(rounds.take()[0])
    assert rounds.pause(99.0) == 0.0  # one has ended, so the limit can wait
    assert rounds.take() == ["a"]
    assert rounds.pause(99.0) == 0.0
    assert rounds.take() == []


def test_the_limit_of_many() -> None:
    rounds = Rounds("ab", 5.0, now=0.0)
    for one in rounds.take():
        rounds.put_back(one)
    with pytest.raises(TimeoutError, match="2 jobs"):
        rounds.pause(5.0)
