"""Our clients of Redis on a line that is spoilt: what they say of it, how soon, and that they recover by themselves."""

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack

import pytest
import redis
import uvloop

from headrace.contract.errors import ModelNotFound, StoreUnavailable
from headrace.contract.events import Cancelled
from headrace.store import keys
from headrace.store.cards import CardBook
from headrace.store.connection import connect, connect_async, store_errors
from headrace.store.live import LiveHub
from tests.chaos.faults.conditions import HALF_OPEN, REFUSING, WELL, Conditions
from tests.chaos.faults.proxy import FaultProxy, proxying
from tests.redis_server import RedisServer, running_redis
from workers.inference.doorbell import Doorbell

LIMIT_S = 0.5


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
    """Nobody waits for two timeouts: there is no second connection on which to wait again."""

    async def work() -> None:
        line.set(before)
        async with connect_async(url(line), socket_timeout_s=LIMIT_S, connect_timeout_s=5.0) as client:
            if before is WELL:
                await client.ping()
            line.set(HALF_OPEN)
            with pytest.raises(StoreUnavailable), store_errors():
                await client.ping()
            assert line.opened == 1
            line.set(WELL)
            assert await client.ping()

    in_gateway(work)
    line.opened = 0
    line.set(before)
    with connect(url(line), socket_timeout_s=LIMIT_S, connect_timeout_s=5.0) as client:
        if before is WELL:
            client.ping()
        line.set(HALF_OPEN)
        with pytest.raises(StoreUnavailable), store_errors():
            client.ping()
        assert line.opened == 1
        line.set(WELL)
        assert client.ping()


def test_who_asks_for_a_model_in_an_outage_does_not_wait_for_others_before(line: FaultProxy) -> None:
    """All of them share one wait: there is one connection on which one question is lost."""

    async def work() -> None:
        async with connect_async(url(line), socket_timeout_s=LIMIT_S, connect_timeout_s=5.0) as client:
            book = CardBook(client)
            line.set(HALF_OPEN)
            answers = await asyncio.gather(*(book.get("model") for _ in range(5)), return_exceptions=True)
            assert all(isinstance(answer, StoreUnavailable) for answer in answers)
            assert line.opened == 1
            line.set(WELL)
            with pytest.raises(ModelNotFound):
                await book.get("model")

    in_gateway(work)


def test_live_events_of_a_line_that_went_deaf_are_heard_again_at_once(line: FaultProxy) -> None:
    """Whoever was not acknowledged has proved it: the next one does not wait for the silence to be noticed."""

    async def work() -> None:
        async with connect_async(url(line)) as client:
            hub = LiveHub(client, acknowledge_s=LIMIT_S, ping_s=60.0)
            async with AsyncExitStack() as stack:
                stack.push_async_callback(hub.close)
                listener = await stack.enter_async_context(hub.listen("job_1"))
                line.set(HALF_OPEN)
                with pytest.raises(StoreUnavailable):
                    async with hub.listen("job_2"):
                        pass
                line.set(WELL)
                assert await listener.next(5.0) is None  # told that it may have missed something
                async with hub.listen("job_3"):
                    await client.publish(keys.live("job_1"), b'{"seq":7,"type":"cancelled"}')
                    assert await listener.next(5.0) == Cancelled(7)

    in_gateway(work)


def test_a_worker_is_rung_again_after_its_line_went_deaf(server: RedisServer, line: FaultProxy) -> None:
    rung: list[bytes] = []
    with connect(url(line), socket_timeout_s=LIMIT_S) as client, connect(server.url) as direct:
        bell = Doorbell(client, {"hr:wake:lane": rung.append}, on_crash=lambda _: None, ping_s=LIMIT_S)
        bell.start()
        try:
            _ring_until_heard(direct, rung)
            line.set(HALF_OPEN)
            direct.publish("hr:wake:lane", b"lost")
            line.set(WELL)
            rung.clear()
            _ring_until_heard(direct, rung)
        finally:
            bell.stop(5.0)


def _ring_until_heard(client: redis.Redis, rung: list[bytes]) -> None:
    give_up_at = time.monotonic() + 20.0
    while not rung:
        assert time.monotonic() < give_up_at, "nobody hears"
        client.publish("hr:wake:lane", b"here")
        threading.Event().wait(0.02)


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


def test_a_call_that_has_no_turn_hears_that_all_connections_are_busy_and_not_that_redis_is_gone(
    server: RedisServer,
) -> None:
    async def work() -> None:
        async with connect_async(server.url, connections=1, turn_s=0.05) as client:
            held = await client.connection_pool.get_connection()  # type: ignore[no-untyped-call]
            with pytest.raises(StoreUnavailable) as caught, store_errors():
                await client.ping()
            assert caught.value.message == "All 1 connections to Redis were busy for 0.05 s."
            await client.connection_pool.release(held)
            assert await client.ping()

    in_gateway(work)
