"""LiveHub: one connection for many listeners, told when they may have missed something."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager

import pytest
import redis.asyncio

from headrace.contract.errors import StoreUnavailable
from headrace.contract.events import Accepted, Cancelled
from headrace.store import keys, live
from headrace.store.connection import connect_async
from headrace.store.live import LiveHub
from tests.redis_server import RedisServer, running_redis


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    """A server of its own: the tests kill it."""
    with running_redis() as server:
        yield server


@pytest.fixture
async def client(server: RedisServer) -> AsyncIterator[redis.asyncio.Redis]:
    async with connect_async(server.url) as client:
        yield client


@asynccontextmanager
async def open_hub(
    client: redis.asyncio.Redis, acknowledge_s: float = 5.0, ping_s: float = 5.0
) -> AsyncIterator[LiveHub]:
    hub = LiveHub(client, acknowledge_s=acknowledge_s, ping_s=ping_s)
    try:
        yield hub
    finally:
        await hub.close()


@pytest.fixture
async def hub(client: redis.asyncio.Redis) -> AsyncIterator[LiveHub]:
    async with open_hub(client) as hub:
        yield hub


def cancelled(seq: int) -> str:
    return f'{{"seq":{seq},"type":"cancelled"}}'


async def test_a_listener_hears_from_the_first_moment_on(client: redis.asyncio.Redis, hub: LiveHub) -> None:
    async with hub.listen("job_a") as listener:
        assert await client.publish(keys.live("job_a"), '{"seq":1,"type":"accepted","job":"job_a","at":5}') == 1
        assert await client.publish(keys.live("job_b"), cancelled(1)) == 0
        assert await listener.next(5) == Accepted(1, "job_a", 5)
        assert await listener.next(0.01) is None


async def test_listeners_of_one_job_share_a_subscription(client: redis.asyncio.Redis, hub: LiveHub) -> None:
    async with hub.listen("job_a") as one:
        async with hub.listen("job_a") as two:
            assert await client.publish(keys.live("job_a"), cancelled(2)) == 1
            assert await one.next(5) == await two.next(5) == Cancelled(2)
        assert await client.publish(keys.live("job_a"), cancelled(3)) == 1
        assert await one.next(5) == Cancelled(3)
    await becomes_silent(client, "job_a")


async def becomes_silent(client: redis.asyncio.Redis, job_id: str) -> None:
    async with asyncio.timeout(5):
        while await client.publish(keys.live(job_id), cancelled(1)):
            await asyncio.sleep(0.01)


async def test_leaving_and_coming_back_is_acknowledged_anew(client: redis.asyncio.Redis, hub: LiveHub) -> None:
    for seq in range(1, 50):
        async with hub.listen("job_a") as listener:
            assert await client.publish(keys.live("job_a"), cancelled(seq)) == 1
            assert await listener.next(5) == Cancelled(seq)
    await becomes_silent(client, "job_a")


async def test_many_jobs_go_over_one_connection(client: redis.asyncio.Redis, hub: LiveHub) -> None:
    all_listen = asyncio.Barrier(50)

    async def one(number: int) -> None:
        async with hub.listen(f"job_{number}") as listener:
            async with asyncio.timeout(10):
                await all_listen.wait()
            assert len(await client.client_list(_type="pubsub")) == 1
            await client.publish(keys.live(f"job_{number}"), cancelled(number))
            assert await listener.next(10) == Cancelled(number)

    await asyncio.gather(*(one(number) for number in range(50)))


async def test_a_slow_listener_is_sent_to_the_journal(client: redis.asyncio.Redis, hub: LiveHub) -> None:
    async with hub.listen("job_a") as slow, hub.listen("job_a") as quick:
        for seq in range(live.MOST_BUFFERED + 10):
            await client.publish(keys.live("job_a"), cancelled(seq))
            assert await quick.next(5) == Cancelled(seq)
        assert await slow.next(5) is None
        left = await slow.next(5)
        assert left is not None
        assert left.seq > live.MOST_BUFFERED


async def test_rubbish_on_a_channel_is_a_reason_to_read_the_journal(client: redis.asyncio.Redis, hub: LiveHub) -> None:
    async with hub.listen("job_a") as listener:
        for rubbish in ("", "[]", "{}", '{"seq":1,"type":"unheard-of"}', "\\xff", '{"seq":1,"type":"delta"}'):
            await client.publish(keys.live("job_a"), rubbish)
            async with asyncio.timeout(5):
                assert await listener.next(60) is None
        await client.publish(keys.live("job_a"), cancelled(1))
        assert await listener.next(5) == Cancelled(1)


async def test_a_restart_of_redis_is_survived_and_told(server: RedisServer) -> None:
    async with connect_async(server.url) as client, open_hub(client) as hub, hub.listen("job_a") as listener:
        await asyncio.to_thread(server.restart)
        async with asyncio.timeout(10):
            assert await listener.next(60) is None
        assert await client.publish(keys.live("job_a"), cancelled(7)) == 1
        assert await listener.next(5) == Cancelled(7)
        async with hub.listen("job_b"):
            assert await client.publish(keys.live("job_b"), cancelled(7)) == 1


async def test_a_redis_that_hangs_is_left_and_found_again(server: RedisServer) -> None:
    async with (
        connect_async(server.url) as client,
        open_hub(client, ping_s=0.1) as hub,
        hub.listen("job_a") as listener,
    ):
        os.kill(server.pid, signal.SIGSTOP)
        try:
            assert await listener.next(0.5) is None
        finally:
            os.kill(server.pid, signal.SIGCONT)
        async with asyncio.timeout(10):
            assert await listener.next(60) is None
        await client.publish(keys.live("job_a"), cancelled(7))
        assert await listener.next(5) == Cancelled(7)


async def test_silence_alone_does_not_end_a_connection(client: redis.asyncio.Redis) -> None:
    async with open_hub(client, ping_s=0.05) as hub, hub.listen("job_a") as listener:
        [before] = await client.client_list(_type="pubsub")
        assert await listener.next(0.5) is None
        [after] = await client.client_list(_type="pubsub")
        assert before["id"] == after["id"]


async def test_without_redis_nobody_waits_for_ever(server: RedisServer) -> None:
    async with connect_async(f"unix://{server.folder}/none.sock") as client, open_hub(client, 0.2) as hub:
        with pytest.raises(StoreUnavailable):
            async with hub.listen("job_a"):
                pytest.fail("entered without an acknowledgement")


async def test_closing_leaves_no_task_and_no_connection(client: redis.asyncio.Redis) -> None:
    before = asyncio.all_tasks()
    hub = LiveHub(client)
    async with hub.listen("job_a"):
        pass
    await hub.close()
    assert asyncio.all_tasks() == before
    async with asyncio.timeout(5):
        while await client.client_list(_type="pubsub"):
            await asyncio.sleep(0.01)
    await hub.close()


async def test_readers_cancelled_twice_leave_nothing_subscribed(client: redis.asyncio.Redis, hub: LiveHub) -> None:
    """A busy loop lets the second cancellation come while the first is still leaving."""

    async def listen(job_id: str) -> None:
        async with hub.listen(job_id):
            await asyncio.Event().wait()

    tasks = [asyncio.create_task(listen(f"job_{number}")) for number in range(50)]
    await until(lambda: client.pubsub_numsub(keys.live("job_49")), [(keys.live("job_49").encode(), 1)])
    for _ in range(3):
        for task in tasks:
            task.cancel()
        await asyncio.sleep(0)
    await asyncio.gather(*tasks, return_exceptions=True)
    await until(lambda: client.pubsub_channels("hr:live:*"), [])
    async with hub.listen("job_49") as listener:
        await client.publish(keys.live("job_49"), cancelled(1))
        assert await listener.next(5) == Cancelled(1)


async def until(ask: Callable[[], Awaitable[object]], wanted: object) -> None:
    async with asyncio.timeout(10):
        while await ask() != wanted:
            await asyncio.sleep(0.01)
