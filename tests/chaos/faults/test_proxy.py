"""The proxy against a server that says everything again: each kind of trouble, and a line that is well again."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from random import Random

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from tests.chaos.faults.conditions import HALF_OPEN, REFUSING, STALLED, WELL, Conditions, mangle
from tests.chaos.faults.proxy import FaultProxy, proxying
from tests.redis_server import running_redis

QUIET_S = 0.15
LATE_S = 0.2


@contextmanager
def saying_again(prefix: bytes = b"") -> Iterator[str]:
    """A server that echoes, each time with `prefix` in front; its URL."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve(connection: socket.socket) -> None:
        with connection, suppress(OSError):
            while data := connection.recv(65_536):
                connection.sendall(prefix + data)

    def accept() -> None:
        with suppress(OSError):
            while True:
                threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield f"tcp://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()


@pytest.fixture
def proxy() -> Iterator[FaultProxy]:
    with saying_again() as url, proxying(url) as proxy:
        yield proxy


@contextmanager
def connected(proxy: FaultProxy) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", proxy.port), timeout=5.0) as client:
        yield client


def ask(client: socket.socket, data: bytes = b"hello") -> bytes:
    client.sendall(data)
    return hear(client, len(data))


def hear(client: socket.socket, count: int) -> bytes:
    """Up to `count` bytes, fewer when the connection ends before."""
    heard = b""
    while len(heard) < count and (data := client.recv(count - len(heard))):
        heard += data
    return heard


def hears_nothing(client: socket.socket) -> bool:
    client.settimeout(QUIET_S)
    try:
        client.recv(1)
    except TimeoutError:
        return True
    finally:
        client.settimeout(5.0)
    return False


def is_reset(proxy: FaultProxy) -> bool:
    """Whether a new connection is, be it already while it is made."""
    try:
        with connected(proxy) as client:
            client.recv(1)
    except ConnectionResetError:
        return True
    return False


def test_a_line_that_is_well_passes_everything_in_order(proxy: FaultProxy) -> None:
    data = Random(1).randbytes(1_000_000)
    with connected(proxy) as client:
        threading.Thread(target=client.sendall, args=(data,), daemon=True).start()
        assert hear(client, len(data)) == data
        assert (proxy.open, proxy.opened, proxy.cuts) == (1, 1, 0)


@pytest.mark.parametrize("line", [Conditions(delay_up_s=LATE_S), Conditions(delay_down_s=LATE_S)])
def test_a_late_line_is_late_once_and_in_order(proxy: FaultProxy, line: Conditions) -> None:
    with connected(proxy) as client:
        assert ask(client) == b"hello"
        proxy.set(line)
        began = time.monotonic()
        for piece in (b"one", b"two", b"three"):
            client.sendall(piece)
        assert hear(client, 11) == b"onetwothree"
        assert LATE_S <= time.monotonic() - began < 2 * LATE_S + 1.0


def test_a_slow_line_takes_its_time(proxy: FaultProxy) -> None:
    with connected(proxy) as client:
        proxy.set(Conditions(bytes_per_s=10_000))
        began = time.monotonic()
        assert ask(client, b"x" * 4_000) == b"x" * 4_000
        assert time.monotonic() - began >= 0.3


@pytest.mark.parametrize("reset", [False, True])
def test_a_cut_ends_what_is_open_and_nothing_else(proxy: FaultProxy, reset: bool) -> None:
    with connected(proxy) as client:
        assert ask(client) == b"hello"
        assert proxy.cut(reset=reset) == 1
        if reset:
            with pytest.raises(ConnectionResetError):
                client.recv(1)
        else:
            assert client.recv(1) == b""
    with connected(proxy) as client:
        assert ask(client) == b"hello"


def test_a_stalled_line_loses_nothing(proxy: FaultProxy) -> None:
    with connected(proxy) as client:
        assert ask(client) == b"hello"
        proxy.set(STALLED)
        client.sendall(b"late")
        assert hears_nothing(client)
        proxy.set(WELL)
        assert hear(client, 4) == b"late"


def test_a_half_open_line_takes_everything_and_never_recovers(proxy: FaultProxy) -> None:
    with connected(proxy) as before:
        assert ask(before) == b"hello"
        proxy.set(HALF_OPEN)
        before.sendall(b"lost")
        assert hears_nothing(before)
        with connected(proxy) as fresh:
            fresh.sendall(b"lost")
            assert hears_nothing(fresh)
            proxy.set(WELL)
            for client in (before, fresh):
                client.sendall(b"still lost")
                assert hears_nothing(client)
    with connected(proxy) as client:
        assert ask(client) == b"hello"


def test_one_direction_can_be_deaf_alone() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        proxying(f"tcp://127.0.0.1:{listener.getsockname()[1]}") as proxy,
        connected(proxy) as client,
        listener.accept()[0] as server,
    ):
        server.settimeout(5.0)
        proxy.set(Conditions(deaf_down=True))
        client.sendall(b"up")
        assert hear(server, 2) == b"up"
        server.sendall(b"down")
        assert hears_nothing(client)


def test_a_refusing_line_leaves_open_connections_alone(proxy: FaultProxy) -> None:
    with connected(proxy) as before:
        assert ask(before) == b"hello"
        proxy.set(REFUSING)
        assert is_reset(proxy)
        assert ask(before) == b"hello"


def test_a_connection_to_nobody_is_reset() -> None:
    with proxying("unix:///nowhere/at/all") as proxy:
        assert is_reset(proxy)


def test_a_connection_ends_after_so_many_bytes(proxy: FaultProxy) -> None:
    proxy.set(Conditions(cut_after=7))
    with connected(proxy) as client:
        assert ask(client) == b"hello"
        assert ask(client) == b"he"
    assert proxy.cuts == 1


def test_another_server_takes_new_connections_and_leaves_the_old() -> None:
    with (
        saying_again(b"1") as first,
        saying_again(b"2") as second,
        proxying(first) as proxy,
        connected(proxy) as old,
    ):
        old.sendall(b"a")
        assert hear(old, 2) == b"1a"
        proxy.switch(second)
        with connected(proxy) as new:
            new.sendall(b"b")
            assert hear(new, 2) == b"2b"
        old.sendall(b"c")
        assert hear(old, 2) == b"1c"


def test_rubbish_is_in_front_of_an_answer_and_no_reply_of_redis(proxy: FaultProxy) -> None:
    proxy.set(Conditions(rubbish=1.0))
    with connected(proxy) as client:
        client.sendall(b"hello")
        heard = b""
        while not heard.endswith(b"hello"):
            heard += client.recv(100)
    assert 1 <= len(heard) - 5 < 32
    assert all(byte >= 0x80 for byte in heard[:-5])


def test_a_truncated_answer_ends_its_connection() -> None:
    cut = [mangle(b"$5\r\nhello\r\n", Conditions(truncated=1.0), Random(seed)) for seed in range(50)]
    assert all(each.ends and b"$5\r\nhello\r\n".startswith(each.data) and len(each.data) < 11 for each in cut)
    assert len({each.data for each in cut}) == 11


def test_the_same_seed_spoils_the_same_answers() -> None:
    line = Conditions(rubbish=0.3, truncated=0.3)
    rows = [[mangle(b"answer", line, dice) for _ in range(100)] for dice in (Random(3), Random(3))]
    assert rows[0] == rows[1]
    assert {each.data == b"answer" for each in rows[0]} == {True, False}


def test_redis_behind_a_unix_socket_answers_through_it_and_rubbish_is_an_error() -> None:
    once = Retry(NoBackoff(), 0)
    with (
        running_redis() as server,
        proxying(server.url) as proxy,
        redis.Redis(port=proxy.port, socket_timeout=5.0, retry=once) as client,
    ):
        assert client.ping()
        proxy.set(Conditions(rubbish=1.0))
        with pytest.raises(redis.exceptions.RedisError):
            client.ping()
        proxy.set(WELL)
        assert client.ping()
