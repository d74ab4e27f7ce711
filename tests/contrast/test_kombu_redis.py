"""Why the queue has leases of its own: the same two accidents with kombu's Redis transport and with ours.

It would be less code to publish jobs as Celery messages on the Redis that is there anyway. These tests are here so that
nobody does: they show what that would lose, with the version that is installed.

- The transport takes a message with BRPOP, and only then records it as unacknowledged. A consumer that is killed in
  between has removed the message from Redis and left no trace of it. A claim removes and records in one script.
- What is unacknowledged for longer than the visibility timeout is delivered again, and nothing prolongs that: a job
  that takes longer runs twice at the same time. A lease is renewed for as long as its worker lives, and no longer.
"""

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import kombu.transport.redis
import pytest
import redis

from headrace.contract.job import Job, State
from headrace.queue.base import Outcome, ReapRequest, Timing
from headrace.queue.redis import RedisQueue
from headrace.queue.verbs import Verbs
from headrace.store.connection import connect
from tests.contracts.bench import make_job
from tests.contrast.consumers import QUEUE, open_kombu, request
from tests.redis_server import RedisServer, running_redis

ROOT = Path(__file__).parents[2]
HOUR_S = 3600
"""kombu's visibility timeout, where none is given."""


@pytest.fixture(scope="module")
def running() -> Iterator[RedisServer]:
    with running_redis(fsync="everysec") as server:
        yield server


@pytest.fixture
def server(running: RedisServer) -> RedisServer:
    with connect(running.url) as client:
        client.flushall()
    return running


def killed_consumer(kind: str, server: RedisServer) -> None:
    """A consumer that was killed as soon as it had read the answer with the job in it."""
    command = [sys.executable, "-m", "tests.contrast.consumers", kind, str(server.socket)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr


def publish(server: RedisServer) -> None:
    with open_kombu(str(server.socket)) as connection, connection.SimpleQueue(QUEUE) as queue:
        queue.put({"job": "1"})


@contextmanager
def kombu_consumer(server: RedisServer, got: list[Any]) -> Iterator[Any]:
    """Puts the messages that it gets into `got`, and acknowledges none: its jobs take long."""
    with open_kombu(str(server.socket)) as connection:
        consumer = connection.Consumer(
            connection.SimpleQueue(QUEUE).queue, accept=["json"], callbacks=[lambda _, message: got.append(message)]
        )
        consumer.qos(prefetch_count=1)
        with consumer:
            yield connection


def drain(connection: Any, times: int = 1) -> None:
    for _ in range(times):
        try:
            connection.drain_events(timeout=0.2)
        except TimeoutError:
            continue


def an_hour_later(monkeypatch: pytest.MonkeyPatch) -> None:
    later = time.time() + HOUR_S + 1
    monkeypatch.setattr(kombu.transport.redis, "time", lambda: later)


def left_in_redis(client: redis.Redis) -> set[bytes]:
    """Keys that could hold a message; bindings only say where one would go."""
    return {key for key in client.scan_iter() if not key.startswith(b"_kombu.binding")}


def accepted(queue: RedisQueue) -> Job:
    job = make_job()
    assert queue.accept(job).outcome is Outcome.OK
    return job


def test_kombu_loses_the_message_of_a_consumer_killed_after_its_pop(
    server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(server)
    with connect(server.url) as client:
        assert left_in_redis(client) == {QUEUE.encode()}
        killed_consumer("kombu", server)
        assert left_in_redis(client) == set(), "kombu has learnt to keep it: see whether leases of our own are needed"
        got: list[Any] = []
        an_hour_later(monkeypatch)
        with kombu_consumer(server, got) as connection:
            drain(connection, 2)
        assert got == []


def test_our_queue_gives_the_job_of_a_worker_killed_after_its_claim_to_another(server: RedisServer) -> None:
    with connect(server.url) as client:
        queue = RedisQueue(client, Timing())
        job = accepted(queue)
        killed_consumer("headrace", server)
        kept = queue.get(job.id)
        assert kept is not None
        assert (kept.state, kept.owner) == (State.LEASED, "w_killed")
        assert queue.reap(ReapRequest(worker="w_killed", died=True)).requeued == (job.id,)
        [again] = queue.claim(request("w_other"))
        assert (again.id, again.attempt) == (job.id, 2)


def test_kombu_gives_a_long_job_to_a_second_consumer_while_the_first_is_at_it(
    server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(server)
    first: list[Any] = []
    second: list[Any] = []
    with kombu_consumer(server, first) as one:
        drain(one)
        assert [message.payload for message in first] == [{"job": "1"}]
        an_hour_later(monkeypatch)
        with kombu_consumer(server, second) as other:
            drain(other, 5)
            assert [message.payload for message in second] == [{"job": "1"}], "kombu no longer delivers it again"


def test_our_queue_leaves_a_long_job_to_a_worker_that_lives(server: RedisServer) -> None:
    timing = Timing()
    with connect(server.url) as client:
        queue = RedisQueue(client, timing)
        job = accepted(queue)
        [mine] = queue.claim(request("w_one"))
        for second in range(0, HOUR_S + 10, 4):
            queue.verbs = Verbs(timing, offset_ms=second * 1000)
            assert queue.renew("w_one", [mine.lease]).gone == ()
            assert queue.reap(ReapRequest()).requeued == ()
        assert queue.claim(request("w_other")) == ()
        kept = queue.get(job.id)
        assert kept is not None
        assert kept.lease == mine.lease
