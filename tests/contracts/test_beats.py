"""Heartbeats: what is written is read, by threads and by tasks, and it stops by itself."""

import redis

from headrace.store import keys
from headrace.store.beats import Beat, BeatReader, drop_beat, read_beats, write_beat
from headrace.store.connection import connect_async
from tests.redis_server import RedisServer

BEAT = Beat("w_b", "tiny@stable", "running", "r1", "d1", 4096, 3, 12, {"headrace_x": {"sum": 1.5}})


async def test_a_beat_is_read_as_it_was_written(client: redis.Redis, redis_server: RedisServer) -> None:
    write_beat(client, BEAT)
    write_beat(client, Beat("w_a", "tiny@stable", "starting"))
    assert 8_000 < client.pttl(keys.worker("w_b")) <= 10_000
    idle, busy = read_beats(client)
    assert (idle.worker, idle.step_age_ms, idle.metrics) == ("w_a", None, {})
    assert (busy.worker, busy.capacity, busy.held, busy.step_age_ms, busy.metrics) == ("w_b", 4096, 3, 12, BEAT.metrics)
    assert busy.at > 1_600_000_000_000
    async with connect_async(redis_server.url) as other:
        assert await BeatReader(other).all() == (idle, busy)


def test_a_beat_forgets_what_the_last_one_said(client: redis.Redis) -> None:
    write_beat(client, BEAT)
    write_beat(client, Beat("w_b", "tiny@stable", "draining"))
    [beat] = read_beats(client)
    assert (beat.state, beat.step_age_ms, beat.held) == ("draining", None, 0)


def test_a_worker_that_ends_in_order_takes_its_beat_along(client: redis.Redis) -> None:
    write_beat(client, BEAT)
    drop_beat(client, "w_b")
    assert read_beats(client) == ()
    assert client.zcard(keys.WORKERS) == 0


def test_a_worker_that_vanished_is_shown_no_more_and_then_forgotten(client: redis.Redis) -> None:
    write_beat(client, BEAT)
    client.delete(keys.worker("w_b"))
    assert read_beats(client) == ()
    client.zincrby(keys.WORKERS, -61_000, "w_b")
    write_beat(client, Beat("w_a", "tiny@stable", "starting"))
    assert client.zrange(keys.WORKERS, 0, -1) == [b"w_a"]
