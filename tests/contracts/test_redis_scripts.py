"""What only the queue on Redis can show: lost answers, forgotten scripts, retention, channels, bytes per token."""

import json
import time
from collections.abc import Iterator
from dataclasses import replace

import pytest
import redis

from headrace.contract import events
from headrace.contract.errors import ErrorInfo, JobNotFound, JournalExpired, SetupError, StoreUnavailable
from headrace.contract.events import Delta
from headrace.contract.job import State
from headrace.queue.async_redis import AsyncRedisQueue
from headrace.queue.base import Append, Outcome, ReapRequest
from headrace.queue.redis import RedisQueue
from headrace.queue.verbs import Verbs
from headrace.store import keys
from headrace.store.connection import check_server, connect, connect_async
from headrace.store.journal import AsyncJournal, Journal
from tests.contracts.bench import (
    LANE,
    TIMING,
    RedisBench,
    accept,
    append,
    claim,
    claim_request,
    delta,
    get,
    make_job,
    success,
)
from tests.redis_server import RedisServer

DAY_MS = 24 * 3600 * 1000


@pytest.fixture
def ear(client: redis.Redis) -> Iterator["Ear"]:
    ear = Ear(client)
    yield ear
    ear.pubsub.close()


class Ear:
    """A plain subscriber, as a stranger would write it."""

    def __init__(self, client: redis.Redis) -> None:
        self.pubsub = client.pubsub(ignore_subscribe_messages=True)  # type: ignore[no-untyped-call]

    def subscribe(self, *channels: str) -> None:
        self.pubsub.subscribe(*channels)
        for _ in channels:
            self.pubsub.get_message(timeout=2)

    def hear(self) -> list[tuple[str, str]]:
        """All that arrives until it has been quiet for a moment."""
        heard = []
        while (message := self.pubsub.get_message(timeout=0.2)) is not None:
            heard.append((message["channel"].decode(), message["data"].decode()))
        return heard


def test_live_messages_are_the_public_json_of_the_journal(redis_bench: RedisBench, ear: Ear) -> None:
    job = make_job()
    ear.subscribe(keys.live(job.id))
    accept(redis_bench, job)
    mine = claim(redis_bench)
    assert append(redis_bench, mine.lease, delta(0, (1, 2)), delta(2, (), "stop")).listeners == 1
    redis_bench.queue.retry(mine.lease, 0, ErrorInfo("engine_error", 'a/"b" ü', True))
    redis_bench.queue.reap(ReapRequest())
    mine = claim(redis_bench, digest="d2")
    append(redis_bench, mine.lease)
    redis_bench.queue.finish(mine.lease, success(1, 2))
    heard = [json.loads(data) for _, data in ear.hear()]
    journal = [json.loads(json.dumps(events.to_json(event))) for event in redis_bench.events(job.id)]
    assert [{**public, "text": ""} if "text" in public else public for public in heard] == journal
    assert [public["type"] for public in heard] == [
        "accepted",
        "started",
        "delta",
        "delta",
        "retrying",
        "resumed",
        "completed",
    ]
    assert heard[2] == {
        "seq": 3,
        "type": "delta",
        "choice": 0,
        "offset": 0,
        "token_ids": [1, 2],
        "text": "text",
        "finish_reason": None,
    }
    assert heard[3]["token_ids"] == []
    assert heard[5]["offsets"] == [2]


def test_a_write_of_nothing_still_counts_listeners(redis_bench: RedisBench, ear: Ear) -> None:
    job = make_job()
    accept(redis_bench, job)
    mine = claim(redis_bench)
    append(redis_bench, mine.lease)
    assert append(redis_bench, mine.lease).listeners == 0
    ear.subscribe(keys.live(job.id))
    assert append(redis_bench, mine.lease).listeners == 1


def test_everything_that_queues_a_job_rings(redis_bench: RedisBench, ear: Ear) -> None:
    ear.subscribe(keys.wake(LANE))
    accept(redis_bench, make_job())
    redis_bench.queue.release(claim(redis_bench).lease)
    redis_bench.queue.retry(claim(redis_bench).lease, 0, ErrorInfo("engine_error", "x", True))
    redis_bench.queue.reap(ReapRequest())
    claim(redis_bench)
    redis_bench.queue.reap(ReapRequest(worker="w1"))
    assert ear.hear() == [(keys.wake(LANE), "standard")] * 4


def test_the_owner_hears_of_cancel_and_deadline(redis_bench: RedisBench, ear: Ear) -> None:
    ear.subscribe(keys.control("w1"))
    accept(redis_bench, make_job(), make_job(deadline_in=1000))
    jobs = redis_bench.queue.claim(claim_request())
    by_deadline = {job.deadline_at is not None: job.id for job in jobs}
    redis_bench.queue.cancel(by_deadline[False])
    redis_bench.advance(2000)
    redis_bench.queue.reap(ReapRequest())
    heard = [json.loads(data) for _, data in ear.hear()]
    assert heard == [{"type": "cancel", "job": by_deadline[False]}, {"type": "cancel", "job": by_deadline[True]}]


def test_a_claim_whose_answer_was_lost_is_answered_again(client: redis.Redis, redis_bench: RedisBench) -> None:
    queue = RedisQueue(client, TIMING)
    accept(redis_bench, *(make_job() for _ in range(3)))
    call = Verbs(TIMING).claim(claim_request(max_jobs=2))
    first, again = queue._run(call), queue._run(call)
    assert len(first) == 2
    assert sorted(again, key=lambda job: job.id) == sorted(first, key=lambda job: job.id)
    assert len(queue.claim(claim_request())) == 1


def test_forgotten_scripts_are_sent_again(client: redis.Redis, redis_bench: RedisBench) -> None:
    accept(redis_bench, make_job(), make_job())
    jobs = redis_bench.queue.claim(claim_request())
    client.script_flush()
    replies = redis_bench.queue.append([Append(job.lease, (delta(0, (1,)),)) for job in jobs])
    assert [(reply.outcome, reply.diverged) for reply in replies] == [(Outcome.OK, False)] * 2
    client.script_flush()
    assert redis_bench.queue.cancel(jobs[0].id).outcome is Outcome.OK


def test_retention_begins_at_the_end(client: redis.Redis, redis_bench: RedisBench) -> None:
    job = make_job(idem_key="k")
    accept(redis_bench, job)
    mine = claim(redis_bench)
    append(redis_bench, mine.lease, delta(0, (1,), "stop"))
    kept = [keys.job(job.id), keys.journal(job.id), keys.idempotency("default", "k")]
    assert [client.pttl(key) for key in kept] == [-1, -1, -1]
    redis_bench.queue.finish(mine.lease, success(1))
    record, journal, idem, result = (client.pttl(key) for key in (*kept, keys.result(job.id)))
    assert DAY_MS - 60_000 < idem <= record + 5 <= DAY_MS + 5
    assert DAY_MS - 60_000 < result <= DAY_MS
    assert 15 * 60_000 - 60_000 < journal <= 15 * 60_000


def test_a_dead_job_stays_until_it_is_purged(client: redis.Redis, redis_bench: RedisBench) -> None:
    job = make_job()
    accept(redis_bench, job)
    for _ in range(3):
        claim(redis_bench)
        redis_bench.queue.reap(ReapRequest(worker="w1", died=True))
    assert client.zrange(keys.dlq(LANE), 0, -1) == [job.id.encode()]
    assert client.pttl(keys.job(job.id)) == -1
    assert client.pttl(keys.journal(job.id)) == -1


def test_an_expired_journal_is_told_from_an_unknown_job(client: redis.Redis, redis_bench: RedisBench) -> None:
    journal, job = Journal(client), make_job()
    with pytest.raises(JobNotFound):
        journal.read(job.id)
    accept(redis_bench, job)
    redis_bench.queue.cancel(job.id)
    assert [event.seq for event in journal.read(job.id, after_seq=1)] == [2]
    assert journal.read(job.id, after_seq=2) == []
    client.delete(keys.journal(job.id))
    with pytest.raises(JournalExpired):
        journal.read(job.id, after_seq=2)
    assert journal.result(job.id) is None


async def test_the_journal_is_read_in_pages_and_joined(redis_server: RedisServer, redis_bench: RedisBench) -> None:
    accept(redis_bench, make_job(n=2))
    mine = claim(redis_bench)
    for offset in range(600):
        append(redis_bench, mine.lease, delta(offset, (offset,)))
    append(redis_bench, mine.lease, delta(0, (9,), "stop", 1))
    blocking = Journal(redis_bench.client)
    assert [event.seq for event in blocking.read(mine.id, after_seq=10, limit=3)] == [11, 12, 13]
    async with connect_async(redis_server.url) as client:
        for first, second in (blocking.ids(mine.id, 2), await AsyncJournal(client).ids(mine.id, 2)):
            assert (first.token_ids, first.finish_reason) == (tuple(range(600)), None)
            assert (second.token_ids, second.finish_reason) == ((9,), "stop")


def test_a_token_takes_twelve_bytes_at_most(client: redis.Redis, redis_bench: RedisBench) -> None:
    accept(redis_bench, make_job(max_tokens=1024))
    mine = claim(redis_bench)
    writes = [Append(mine.lease, (delta(at, tuple(range(at * 30, at * 30 + 8))),)) for at in range(0, 1024, 8)]
    assert {reply.outcome for reply in redis_bench.queue.append(writes)} == {Outcome.OK}
    used = client.memory_usage(keys.journal(mine.id), samples=0)
    assert used is not None
    assert used / 1024 <= 12


def test_a_broken_entry_harms_no_other_job(client: redis.Redis, redis_bench: RedisBench) -> None:
    job = make_job()
    client.zadd(keys.lane(LANE, "standard"), {"job_ghost": 1})
    client.zadd(keys.DEADLINES, {"job_ghost": 1})
    client.sadd(keys.held("w2"), "job_ghost")
    accept(redis_bench, job)
    assert claim(redis_bench).id == job.id
    redis_bench.queue.reap(ReapRequest())
    assert redis_bench.queue.renew("w2", []).held == ()
    redis_bench.queue.reap(ReapRequest(worker="w2"))
    redis_bench.queue.cancel(job.id)
    assert redis_bench.leftovers() == set()


def test_a_newer_record_is_read_and_an_older_one_gets_defaults(client: redis.Redis, redis_bench: RedisBench) -> None:
    job = make_job()
    accept(redis_bench, job)
    client.hset(keys.job(job.id), mapping={"schema": 4, "colour": "blue"})
    client.hdel(keys.job(job.id), "deaths", "kv_tokens", "tenant")
    kept = get(redis_bench, job.id)
    assert (kept.schema, kept.deaths, kept.kv_tokens, kept.tenant) == (4, 0, 0, "default")


def test_a_job_that_an_older_version_began_is_not_exact_under_another_digest(
    client: redis.Redis, redis_bench: RedisBench
) -> None:
    accept(redis_bench, make_job())
    job = claim(redis_bench)
    append(redis_bench, job.lease)
    client.hdel(keys.job(job.id), "digests")
    redis_bench.queue.release(job.lease)
    append(redis_bench, claim(redis_bench, "w2", digest="d2").lease)
    last = redis_bench.events(job.id)[-1]
    assert isinstance(last, events.Resumed)
    assert not last.exact


async def test_the_awaited_queue_says_the_same(redis_server: RedisServer, redis_bench: RedisBench) -> None:
    async with connect_async(redis_server.url) as client:
        queue = AsyncRedisQueue(client, TIMING)
        await client.script_flush()
        job = replace(make_job(), metadata={"a": "b"})
        assert (await queue.accept(job, body_hash="x")).outcome is Outcome.OK
        [mine] = await queue.claim(claim_request())
        await client.script_flush()
        [reply] = await queue.append([Append(mine.lease, (delta(0, (1,)),))])
        assert reply.outcome is Outcome.OK
        assert (await queue.renew("w1", [mine.lease])).held == (mine.lease,)
        assert (await queue.retry(mine.lease, 0, ErrorInfo("engine_error", "x", True))).state is State.RETRY_WAIT
        assert (await queue.reap(ReapRequest())).requeued == (job.id,)
        [mine] = await queue.claim(claim_request())
        assert (await queue.release(mine.lease)).state is State.QUEUED
        [mine] = await queue.claim(claim_request())
        await queue.append([Append(mine.lease, (delta(1, (), "stop"),))])
        assert (await queue.finish(mine.lease, success(1))).outcome is Outcome.OK
        assert (await queue.cancel(job.id)).outcome is Outcome.TERMINAL
        kept = await queue.get(job.id)
        assert kept is not None
        assert kept.metadata == {"a": "b"}


def test_a_store_that_is_away_or_full_is_unavailable(tmp_path_factory: pytest.TempPathFactory) -> None:
    with connect(f"unix://{tmp_path_factory.mktemp('none')}/none.sock") as client:
        started = time.monotonic()
        with pytest.raises(StoreUnavailable):
            RedisQueue(client, TIMING).get("job_x")
        with pytest.raises(StoreUnavailable):
            check_server(client)
        assert time.monotonic() - started < 5


def test_a_full_store_refuses_as_unavailable_and_takes_nothing(client: redis.Redis, redis_bench: RedisBench) -> None:
    job = make_job()
    client.config_set("maxmemory", "1")
    try:
        with pytest.raises(StoreUnavailable):
            redis_bench.queue.accept(job)
    finally:
        client.config_set("maxmemory", "0")
    assert redis_bench.queue.get(job.id) is None
    assert redis_bench.queue.accept(job).outcome is Outcome.OK


def test_a_store_that_drops_keys_is_refused(client: redis.Redis) -> None:
    client.config_set("maxmemory-policy", "allkeys-lru")
    try:
        with pytest.raises(SetupError, match="allkeys-lru"):
            check_server(client)
    finally:
        client.config_set("maxmemory-policy", "noeviction")
    check_server(client)


def test_a_fault_of_ours_is_not_called_an_outage(client: redis.Redis, redis_bench: RedisBench) -> None:
    client.set(keys.job("job_x"), "not a hash")
    with pytest.raises(redis.exceptions.ResponseError):
        redis_bench.queue.cancel("job_x")


def test_deltas_of_a_journal_carry_no_text(redis_bench: RedisBench) -> None:
    accept(redis_bench, make_job())
    append(redis_bench, claim(redis_bench).lease, delta(0, (1,)))
    [job_id] = [lease.job_id for lease in redis_bench.queue.renew("w1", []).held]
    assert [event.text for event in redis_bench.events(job_id) if isinstance(event, Delta)] == [""]
