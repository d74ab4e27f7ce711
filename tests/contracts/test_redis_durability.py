"""What was acknowledged is still there after SIGKILL of Redis and a restart; what was not can be said again."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from headrace.contract.errors import StoreUnavailable
from headrace.contract.events import Delta
from headrace.contract.job import Lease
from headrace.queue.base import Append, Outcome, ReapRequest
from headrace.queue.redis import RedisQueue
from headrace.store.connection import connect
from headrace.store.journal import Journal
from tests.contracts.bench import TIMING, claim_request, delta, make_job, success
from tests.redis_server import RedisServer, running_redis


@pytest.fixture
def server() -> Iterator[RedisServer]:
    with running_redis() as server:
        yield server


def test_a_kill_in_full_flow_loses_nothing_acknowledged(server: RedisServer) -> None:
    with connect(server.url) as client:
        queue, journal = RedisQueue(client, TIMING), Journal(client)
        jobs = [make_job(max_tokens=90_000) for _ in range(4)]
        for job in jobs:
            queue.accept(job)
        leases = [job.lease for job in queue.claim(claim_request())]
        acknowledged = dict.fromkeys((lease.job_id for lease in leases), 0)
        enough = threading.Event()

        def write() -> None:
            at = 0
            while True:
                try:
                    replies = queue.append([Append(lease, (delta(at, (at, at + 1)),)) for lease in leases])
                except StoreUnavailable:
                    return
                assert {reply.outcome for reply in replies} == {Outcome.OK}
                at += 2
                acknowledged.update(dict.fromkeys(acknowledged, at))
                if at > 200:
                    enough.set()

        writer = threading.Thread(target=write)
        writer.start()
        assert enough.wait(30)
        server.kill()
        writer.join(30)
        assert not writer.is_alive()
        server.start()
        for lease in leases:
            have = len(journal.ids(lease.job_id)[0].token_ids)
            assert have in (acknowledged[lease.job_id], acknowledged[lease.job_id] + 2)
            assert queue.renew("w1", [lease]).gone == ()
            go_on_and_finish(queue, lease, acknowledged[lease.job_id])
            assert journal.ids(lease.job_id)[0].finish_reason == "stop"


def go_on_and_finish(queue: RedisQueue, lease: Lease, at: int) -> None:
    """Say the unacknowledged append again, then end the job: the worker need not know what had been written."""
    again = Append(lease, (delta(at, (at, at + 1)),))
    assert [reply.outcome for reply in queue.append([again, again])] == [Outcome.OK] * 2
    last = Append(lease, (delta(at + 2, (), "stop"),))
    assert queue.append([last])[0].outcome is Outcome.OK
    assert queue.finish(lease, success(*range(at + 2))).outcome is Outcome.OK


def test_a_lost_tail_is_healed_by_the_worker(server: RedisServer) -> None:
    """Without fsync at every call a tail may go; the worker still has the ids and is told where to go on."""
    with connect(server.url) as client:
        queue, journal = RedisQueue(client, TIMING), Journal(client)
        queue.accept(make_job())
        [job] = queue.claim(claim_request())
        queue.append([Append(job.lease, (delta(0, (0, 1, 2)),))])
        # Redis 6 has one file, Redis 7 a folder of them with a manifest; what is written now goes to the largest.
        aof = max(filter(Path.is_file, server.folder.rglob("appendonly.aof*")), key=lambda file: file.stat().st_size)
        durable = aof.stat().st_size
        queue.append([Append(job.lease, (delta(3, (3, 4, 5), "stop"),))])
        server.kill()
        with aof.open("r+b") as file:
            file.truncate(durable)
        server.start()
        refused = queue.finish(job.lease, success(*range(6)))
        assert (refused.outcome, refused.have) == (Outcome.GAP, 3)
        assert queue.append([Append(job.lease, (delta(3, (3, 4, 5), "stop"),))])[0].outcome is Outcome.OK
        assert queue.finish(job.lease, success(*range(6))).outcome is Outcome.OK
        tokens = [token for event in journal.read(job.id) if isinstance(event, Delta) for token in event.token_ids]
        assert tokens == list(range(6))


def test_a_restart_is_no_massacre(server: RedisServer) -> None:
    with connect(server.url) as client:
        queue = RedisQueue(client, TIMING)
        while queue.reap(ReapRequest()).quiet:
            queue = RedisQueue(client, TIMING, offset_ms=queue.verbs.offset_ms + TIMING.lease_ms * 4 // 10)
        assert not queue.reap(ReapRequest()).quiet
        server.restart()
        assert queue.reap(ReapRequest()).quiet
