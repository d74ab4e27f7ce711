"""Consumers in processes of their own that die at the worst moment: the broker's answer is read, nothing else is done.

`python -m tests.contrast.consumers kombu|headrace <socket>`
"""

import os
import signal
import sys
from collections.abc import Callable
from typing import Any

import redis
from kombu.connection import Connection

from headrace.queue.base import ClaimRequest, Timing
from headrace.queue.redis import RedisQueue
from headrace.store.connection import connect

QUEUE, LANE, REVISION = "jobs", "tiny@stable", "r1"
ROOM = 1
"""Messages that a consumer has room for: it takes no more than it can begin at once."""


def request(worker: str) -> ClaimRequest:
    return ClaimRequest((LANE,), worker, REVISION, "d1", 1000, 1000, ROOM)


def open_kombu(socket: str) -> Any:
    """A connection as kombu makes it, with all its defaults."""
    return Connection(f"redis+socket://{socket}")  # type: ignore[no-untyped-call]


def die_after(*commands: str) -> None:
    """SIGKILL once the answer to one of these commands has been read, whoever sent it; a blocking one that ran out of
    time has none."""
    read: Callable[..., Any] = redis.Redis.parse_response

    def read_and_die(self: redis.Redis, connection: Any, command_name: str, **options: Any) -> Any:
        answer = read(self, connection, command_name, **options)
        if command_name in commands and answer:
            os.kill(os.getpid(), signal.SIGKILL)
        return answer

    redis.Redis.parse_response = read_and_die  # type: ignore[method-assign]


def consume_with_kombu(socket: str) -> None:
    die_after("BRPOP")
    with open_kombu(socket) as connection:
        consumer = connection.Consumer(connection.SimpleQueue(QUEUE).queue, accept=["json"])
        consumer.qos(prefetch_count=ROOM)
        consumer.consume()
        while True:
            connection.drain_events(timeout=10)


def consume_with_headrace(socket: str) -> None:
    die_after("EVALSHA", "EVAL")
    RedisQueue(connect(f"unix://{socket}"), Timing()).claim(request("w_killed"))


if __name__ == "__main__":
    {"kombu": consume_with_kombu, "headrace": consume_with_headrace}[sys.argv[1]](sys.argv[2])
