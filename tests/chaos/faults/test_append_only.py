"""What is cut off an append-only file is what was written last, and Redis starts on the rest."""

from collections.abc import Iterator
from random import Random

import pytest

from headrace.store.connection import connect
from tests.chaos.faults.append_only import Tail
from tests.redis_server import RedisServer, running_redis


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    with running_redis() as server:
        yield server


def written(server: RedisServer) -> Tail:
    """A tail of ten commands, one of them of several lines."""
    with connect(server.url) as client:
        client.flushall()
        client.set("before", "1")
        tail = Tail(server.folder)
        for number in range(9):
            client.rpush("list", number)
        client.set("last", b"two\r\nlines")
    server.kill()
    return tail


def rest(server: RedisServer) -> tuple[int, bool, bool]:
    """How long the list is, and whether the first and the last key are there."""
    server.start()
    with connect(server.url) as client:
        return int(client.llen("list")), bool(client.exists("before")), bool(client.exists("last"))


@pytest.mark.parametrize(
    ("count", "cut", "left"), [(0, 0, (9, True, True)), (1, 1, (9, True, False)), (4, 4, (6, True, False))]
)
def test_the_last_commands_are_cut(server: RedisServer, count: int, cut: int, left: tuple[int, bool, bool]) -> None:
    tail = written(server)
    assert tail.commands() == 10
    assert tail.cut_commands(count) == cut
    assert rest(server) == left


def test_no_more_is_cut_than_was_written_since(server: RedisServer) -> None:
    tail = written(server)
    assert tail.cut_commands(1_000) == 10
    assert rest(server) == (0, True, False)


@pytest.mark.parametrize("seed", range(3))
def test_a_command_that_is_left_in_pieces_is_gone_too(server: RedisServer, seed: int) -> None:
    tail = written(server)
    assert tail.cut_within(2, Random(seed)) == 3
    assert rest(server) == (7, True, False)
