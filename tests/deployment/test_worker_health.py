"""The healthcheck of a worker's container: true while its worker beats, and false when it hangs, is old or is gone."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping

import pytest
import redis

from headrace.contract.ids import worker_id, worker_prefix
from headrace.settings import Settings
from headrace.store.beats import Beat, read_beats
from tests.integration.gateway.scripted_worker import wait_for
from tests.redis_server import RedisServer
from workers.health import MISSED_BEATS, trouble_of

BEAT_MS = 200


@pytest.fixture
def environment(deployment_redis: RedisServer, store: redis.Redis) -> Mapping[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("HEADRACE_")}
    return {
        **kept,
        "HEADRACE_REDIS__URL": deployment_redis.url,
        "HEADRACE_WORKER__MODEL": "fake:",
        "HEADRACE_QUEUE__BEAT_MS": str(BEAT_MS),
    }


@pytest.fixture
def worker(environment: Mapping[str, str], store: redis.Redis) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-m", "workers"]
    process = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL, process_group=0)
    try:
        wait_for(lambda: any(beat.state == "ready" for beat in read_beats(store)), 30)
        yield process
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def health(environment: Mapping[str, str], **settings: str) -> tuple[int, str]:
    command = [sys.executable, "-m", "workers.health"]
    ended = subprocess.run(command, env={**environment, **settings}, capture_output=True, text=True, timeout=30)
    assert ended.stdout == ""
    assert len(ended.stderr.splitlines()) == ended.returncode
    return ended.returncode, ended.stderr


def test_it_is_well_while_it_beats_and_ill_when_it_is_stopped_or_gone(
    environment: Mapping[str, str], worker: subprocess.Popen[bytes], store: redis.Redis
) -> None:
    wait_for(lambda: health(environment) == (0, ""))
    assert health(environment, HEADRACE_WORKER__TAG="another")[0] == 1
    os.kill(worker.pid, signal.SIGSTOP)
    code, said = wait_for(lambda: answer if (answer := health(environment))[0] else None)
    assert code == 1
    assert f"_{worker.pid}_" in said
    assert "beat last" in said
    os.kill(worker.pid, signal.SIGCONT)
    wait_for(lambda: health(environment) == (0, ""))
    worker.terminate()
    assert worker.wait(10) == 0
    assert "beats" in health(environment)[1]


def test_without_a_store_it_is_ill_within_seconds(environment: Mapping[str, str]) -> None:
    assert health(environment, HEADRACE_REDIS__URL="unix:///nowhere/r.sock")[0] == 1
    assert "Redis" in health(environment, HEADRACE_REDIS__URL="redis://127.0.0.1:1/0")[1]


@pytest.mark.parametrize(
    ("beats", "said"),
    [
        ([], "no worker"),
        ([("w_elsewhere_7_a", 0, None)], "no worker"),
        ([("w_here_7_a", 1_000, None)], ""),
        ([("w_here_7_a", 1_000 * MISSED_BEATS, None)], ""),
        ([("w_here_7_a", 1_000 * MISSED_BEATS + 1, None)], "w_here_7_a beat last 5.0 s ago"),
        # One that was started again in the same container: the earlier one's last beat says nothing.
        ([("w_here_7_a", 9_000, None), ("w_here_8_b", 100, None)], ""),
        ([("w_here_7_a", 0, 59_000)], ""),
        ([("w_here_7_a", 0, 61_000)], "has not stepped for 61 s"),
    ],
)
def test_what_beats_say(beats: list[tuple[str, int, int | None]], said: str) -> None:
    now = 1_000_000
    given = [Beat(name, "m@stable", "ready", at=now - age, step_age_ms=step) for name, age, step in beats]
    trouble = trouble_of(given, Settings(), prefix="w_here_", now_ms=now)
    assert said in trouble
    assert bool(said) == bool(trouble)


def test_it_looks_for_the_name_that_a_worker_gives_itself() -> None:
    assert worker_id("tag").startswith(worker_prefix())
