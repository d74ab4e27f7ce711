"""Our clients of Redis on a line that is spoilt: what they say of it, how soon, and that they recover by themselves."""

import time
from collections.abc import Awaitable, Callable, Iterator

import pytest
import redis
import uvloop

from headrace.contract.errors import StoreUnavailable
from headrace.store.connection import connect, connect_async, store_errors
from tests.chaos.faults.conditions import HALF_OPEN, REFUSING, WELL, Conditions
from tests.chaos.faults.proxy import FaultProxy, proxying
from tests.redis_server import RedisServer, running_redis

LIMIT_S = 0.3


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    with running_redis() as server:
        yield server


@pytest.fixture
def line(server: RedisServer) -> Iterator[FaultProxy]:
    with proxying(server.url) as proxy:
        yield proxy


def in_gateway(work: Callable[[], Awaitable[None]]) -> None:
    """On the kind of loop that a gateway runs on."""

    async def run() -> None:
        await work()

    uvloop.run(run())


def url(line: FaultProxy) -> str:
    return f"redis://{line.address}/0"


def test_a_write_to_a_connection_that_was_reset_is_an_error_of_the_network(line: FaultProxy) -> None:
    async def work() -> None:
        async with connect_async(url(line), socket_timeout_s=5.0) as client:
            connection = client.connection_pool.make_connection()  # type: ignore[no-untyped-call]
            await connection.connect()
            line.cut(reset=True)
            with pytest.raises(redis.exceptions.ConnectionError):
                await connection.read_response(disconnect_on_error=False)
            with pytest.raises(redis.exceptions.ConnectionError):
                await connection.send_command("PING")

    in_gateway(work)


def test_a_stale_connection_is_replaced_without_a_word(line: FaultProxy) -> None:
    async def work() -> None:
        async with connect_async(url(line)) as client:
            for reset in (False, True):
                assert await client.ping()
                line.cut(reset=reset)
                assert await client.ping()

    in_gateway(work)
    with connect(url(line)) as client:
        for reset in (False, True):
            assert client.ping()
            line.cut(reset=reset)
            assert client.ping()


@pytest.mark.parametrize("before", [WELL, HALF_OPEN], ids=["open", "new"])
def test_a_server_that_does_not_answer_is_waited_for_once(line: FaultProxy, before: Conditions) -> None:
    async def work() -> None:
        line.set(before)
        async with connect_async(url(line), socket_timeout_s=LIMIT_S, connect_timeout_s=LIMIT_S) as client:
            if before is WELL:
                await client.ping()
            line.set(HALF_OPEN)
            began = time.monotonic()
            with pytest.raises(StoreUnavailable), store_errors():
                await client.ping()
            assert time.monotonic() - began < 1.9 * LIMIT_S
            line.set(WELL)
            assert await client.ping()

    in_gateway(work)
    line.set(before)
    with connect(url(line), socket_timeout_s=LIMIT_S, connect_timeout_s=LIMIT_S) as client:
        if before is WELL:
            client.ping()
        line.set(HALF_OPEN)
        began = time.monotonic()
        with pytest.raises(StoreUnavailable), store_errors():
            client.ping()
        assert time.monotonic() - began < 1.9 * LIMIT_S
        line.set(WELL)
        assert client.ping()


@pytest.mark.parametrize("conditions", [REFUSING, Conditions(rubbish=1.0), Conditions(truncated=1.0)])
def test_what_is_no_answer_is_an_outage_and_passes(line: FaultProxy, conditions: Conditions) -> None:
    async def work() -> None:
        async with connect_async(url(line)) as client:
            for _ in range(3):
                assert await client.ping()
                line.set(conditions)
                line.cut()
                with pytest.raises(StoreUnavailable), store_errors():
                    await client.ping()
                line.set(WELL)
            assert await client.ping()

    in_gateway(work)
    with connect(url(line)) as client:
        for _ in range(3):
            assert client.ping()
            line.set(conditions)
            line.cut()
            with pytest.raises(StoreUnavailable), store_errors():
                client.ping()
            line.set(WELL)
        assert client.ping()
