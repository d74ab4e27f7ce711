"""The healthcheck of a worker's container: true while its worker beats, and false when it hangs, is old or is gone."""

import os
import signal
import subprocess
import sys
import time
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


def silent_ms(store: redis.Redis) -> int:
    (beat,) = read_beats(store)
    seconds, micros = store.time()
    return int(seconds * 1000 + micros // 1000 - beat.at)


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
    os.kill(worker.pid, signal.SIGSTOP)
    wait_for(lambda: silent_ms(store) > MISSED_BEATS * BEAT_MS)
    code, said = health(environment)
    assert code == 1
    assert f"_{worker.pid}_" in said
    assert "beat last" in said
    os.kill(worker.pid, signal.SIGCONT)
    wait_for(lambda: silent_ms(store) < BEAT_MS)
    wait_for(lambda: health(environment) == (0, ""))
    worker.terminate()
    assert worker.wait(10) == 0
    assert "beats" in health(environment)[1]


def test_without_a_store_it_is_ill_within_seconds(environment: Mapping[str, str]) -> None:
    began = time.monotonic()
    assert "Redis" in health(environment, HEADRACE_REDIS__URL="redis://127.0.0.1:1/0")[1]
    assert time.monotonic() - began < 8  # the check's own timeout is 10 s


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
