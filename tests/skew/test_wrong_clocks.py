"""Hosts with wrong clocks do no harm (rules 6, 7): a gateway and two workers, hours ahead and behind, through a retry,
a deadline and a death. No decision is taken by a host's time of day, and all times on a record are the server's."""

import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

import pytest

from headrace import Client
from headrace.contract.events import Resumed, Retrying
from headrace.contract.job import Job, State
from headrace.store.beats import read_beats
from headrace.supervisor.redis_server import free_port
from tests.integration.workers.fleet import Fleet, eventually
from tests.integration.workers.processes import Processes
from tests.integration.workers.test_fake_engine_runs import expected
from tests.redis_server import running_redis

HOUR_S = 3600
SITE = str(Path(__file__).parent / "site")
QUICK = {
    "HEADRACE_QUEUE__LEASE_MS": "1500",
    "HEADRACE_QUEUE__RENEW_MS": "200",
    "HEADRACE_QUEUE__BEAT_MS": "100",
    "HEADRACE_QUEUE__REAP_MS": "100",
}
MODEL = f"fake:speed=100,poison={ord('!')},error_at=5"
"""Fails for prompts that begin with an exclamation mark, and may be tried again."""


def skewed(hours: int) -> Mapping[str, str]:
    """Variables of a process whose clock is wrong."""
    return {"PYTHONPATH": SITE, "CLOCK_SKEW_S": str(hours * HOUR_S)}


def server_ms(fleet: Fleet) -> int:
    seconds, micros = fleet.client.time()
    return int(seconds * 1000 + micros // 1000)


def times_of(job: Job) -> list[int]:
    known = [job.created_at, job.queued_at, job.leased_at, job.first_token_at, job.ended_at]
    return [at for at in known if at is not None] + [past.at for past in job.history]


@pytest.mark.parametrize("hours", [5, -7])
def test_the_clock_of_such_a_process_is_wrong(hours: int) -> None:
    code = "import time, datetime; print(int(time.time()), int(datetime.datetime.now().timestamp()))"
    run = subprocess.run([sys.executable, "-c", code], env=skewed(hours), capture_output=True, text=True, check=True)
    for told in map(int, run.stdout.split()):
        assert abs(told - time.time() - hours * HOUR_S) < 60


def test_hosts_with_wrong_clocks_do_no_harm(tmp_path: Path) -> None:
    port = free_port()
    with running_redis(fsync="everysec") as server, ExitStack() as stack:
        fleet = Fleet(server)
        processes = Processes(fleet, tmp_path)
        stack.enter_context(processes.running("gateway", "gateway", "--port", str(port), **QUICK, **skewed(9)))
        hosts = {"ahead": skewed(5), "behind": skewed(-7)}
        workers = {
            tag: stack.enter_context(
                processes.running(tag, "workers", "--model", MODEL, "--tag", tag, **QUICK, **variables)
            )
            for tag, variables in hosts.items()
        }
        eventually(lambda: [beat.state for beat in read_beats(fleet.client)] == ["ready"] * 2, "two workers")
        card = fleet.card("fake@stable")
        assert abs(card.created_at - server_ms(fleet)) > 4 * HOUR_S * 1000, "a right clock: this proves nothing"

        eventually(lambda: "gateway.listening" in processes.log("gateway"), "the gateway")
        client = stack.enter_context(Client(f"http://127.0.0.1:{port}"))
        long = client.submit(model="fake", prompt="kill me", max_tokens=250, seed=7, deadline_seconds=60).id
        late = client.submit(model="fake", prompt="too long", max_tokens=1500, seed=7, deadline_seconds=1).id
        failing = fleet.submit_to("fake@stable", card.revision, "!")

        eventually(lambda: fleet.running(long, 20), "tokens")
        workers[fleet.get(long).owner.rpartition("_")[2]].kill()
        done, expired = fleet.ended(long), fleet.ended(late)
        eventually(lambda: len(fleet.get(failing).history) >= 2, "a second attempt")
        client.job(failing).cancel()

        assert (done.state, expired.state) == (State.SUCCEEDED, State.EXPIRED)
        assert fleet.token_ids(long) == expected("kill me", 250)
        assert any(isinstance(event, Resumed) for event in fleet.events(long))
        assert expired.created_at is not None
        assert expired.ended_at is not None
        assert 1000 <= expired.ended_at - expired.created_at < 10_000
        retried = fleet.get(failing)
        waits = [event.in_ms for event in fleet.events(failing) if isinstance(event, Retrying)]
        first, second = (past.at for past in retried.history[:2])
        assert waits[0] <= second - first < waits[0] + 10_000
        now = server_ms(fleet)
        for job in (done, expired, retried):
            assert all(now - 120_000 < at <= now for at in times_of(job)), times_of(job)
        assert all(now - 60_000 < beat.at <= now for beat in read_beats(fleet.client))
