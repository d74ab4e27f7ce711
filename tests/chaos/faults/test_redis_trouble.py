"""Nothing is lost, repeated or different when Redis loses its tail or is replaced: the long form, in short."""

import pytest

from tests.chaos.faults.fleet import FaultFleet
from tests.chaos.faults.rounds import play


@pytest.mark.parametrize("scenario", ["tail-at-byte", "failover"])
def test_every_accepted_job_ends_once_with_its_tokens(faulty_fleet: FaultFleet, scenario: str) -> None:
    done = play(faulty_fleet, scenario, seed=1)
    assert not done.tally.faults, done.line()
    assert done.tally.jobs >= faulty_fleet.times.streams
    assert done.tally.tokens > 0
