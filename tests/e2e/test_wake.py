"""A fleet that sleeps wakes for work and sleeps again, losing nothing. The real model's times: `tests.e2e.wake`."""

from pathlib import Path

from headrace import Client
from tests.e2e.fleet import running
from tests.e2e.wake import burst, worker_processes

ENVIRON = {"HEADRACE_SCALE__IDLE_S": "1", "HEADRACE_SCALE__LOOK_S": "0.2", "HEADRACE_LOG__FORMAT": "json"}


def test_two_bursts_wake_it_twice(tmp_path: Path) -> None:
    with (
        running(tmp_path, model="fake:speed=200", workers="0..2", environ=ENVIRON) as fleet,
        Client(fleet.url) as client,
    ):
        assert not worker_processes(fleet)
        first = burst(fleet, client, jobs=4, max_tokens=16)
        second = burst(fleet, client, jobs=4, max_tokens=16)
        assert not worker_processes(fleet)
        assert fleet.redis.keys("hr:held:*") == []
    assert (first.ended, second.ended) == (4, 4)
    assert first.worker != second.worker, "the second burst woke another one"
    said = (tmp_path / "up.log").read_text()
    assert said.count("fake@stable: 0 → 1 workers") == 2
    assert said.count("workers (idle)") >= 2
    assert "ended" not in said, "leaving is no death"
    for seen in (first, second):
        assert seen.start_s > -0.1, "nobody starts before there is work"
        assert seen.zero_s > 0.9, "and nobody leaves before the idle time"
