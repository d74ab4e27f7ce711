"""A rolling upgrade, and its rollback: two versions of the record on one store, and no job notices.

The next version has one more field, which its gateway fills. Old workers finish its jobs and new ones those of the old
gateway, in flight, and what an old process does not know it leaves as it was.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import pytest
import redis

from headrace.client import Client, JobHandle, Patience
from headrace.contract.events import Completed, Delta, Event, Resumed, Started
from headrace.contract.job import SCHEMA, Job, State
from headrace.queue.base import Timing
from headrace.queue.redis import RedisQueue
from headrace.store.beats import read_beats
from tests.deployment.versions import NOTE, Version, Worker, two_versions
from tests.integration.gateway.scripted_worker import wait_for
from tests.integration.gateway.test_process import free_port
from tests.redis_server import RedisServer
from workers.inference.fake_engine import token_at
from workers.inference.messages import AddRequest

TOKENS = 120
Following = dict[str, Future[list[Event]]]


@pytest.fixture
def versions(
    tmp_path_factory: pytest.TempPathFactory, deployment_redis: RedisServer, store: redis.Redis
) -> Iterator[tuple[Version, Version]]:
    with two_versions(tmp_path_factory.mktemp("versions"), deployment_redis.url) as both:
        yield both


def test_two_versions_share_a_store_and_nothing_is_lost(versions: tuple[Version, Version], store: redis.Redis) -> None:
    old, new = versions
    assert (old.schema(), new.schema()) == (SCHEMA, SCHEMA + 1)
    queue = RedisQueue(store, Timing())
    patience = Patience(silence_s=20)
    with (
        Client(old.gateway(free_port()), patience=patience) as old_gateway,
        Client(new.gateway(free_port()), patience=patience) as new_gateway,
        ThreadPoolExecutor(16) as readers,
    ):

        def submit(to: Client, others: Client, name: str) -> Following:
            """Three jobs, each followed from its first event on through the other version's gateway."""
            jobs = [submitted(to, f"{name} {number}") for number in range(3)]
            return {job.id: readers.submit(list, others.job(job.id).stream()) for job in jobs}

        # An upgrade of the workers while the old gateway's jobs run.
        first = old.worker("a", speed=20)
        wait_ready(store, first)
        before = submit(old_gateway, new_gateway, "before")
        wait_streaming(queue, before)
        first.drain()
        second = new.worker("b", speed=40)
        wait_ready(store, second)
        third = old.worker("c", speed=100)
        assert histories(before, queue) == {("a", "b")}

        # Both versions at once: three jobs are all that one worker takes. Then the rollback.
        wait_ready(store, third)
        both = submit(old_gateway, new_gateway, "old"), submit(new_gateway, old_gateway, "new")
        wait_streaming(queue, {**both[0], **both[1]})
        second.drain()
        assert histories(both[0], queue) | histories(both[1], queue) == {("b", "c"), ("c",)}

        for job_id in [*before, *both[0], *both[1]]:
            noted = job_id in both[1]
            assert store.hget(f"hr:job:{job_id}", "note") == (NOTE.encode() if noted else None)
            assert store.hget(f"hr:job:{job_id}", "schema") == str(SCHEMA + noted).encode()
            views = [client.fetch(job_id) for client in (old_gateway, new_gateway)]
            assert views[0].raw == views[1].raw


def submitted(client: Client, prompt: str) -> JobHandle:
    return client.submit(model="fake", prompt=prompt, max_tokens=TOKENS, seed=7)


def wait_ready(store: redis.Redis, worker: Worker) -> None:
    def ready() -> bool:
        assert worker.process.poll() is None, "the worker has ended"
        return any(beat.worker.endswith(worker.name) and beat.state == "ready" for beat in read_beats(store))

    wait_for(ready, 60)


def wait_streaming(queue: RedisQueue, jobs: Following) -> None:
    wait_for(lambda: all(record(queue, job_id).next_offset[0] >= 5 for job_id in jobs), 30)


def histories(jobs: Following, queue: RedisQueue) -> set[tuple[str, ...]]:
    """Which workers, by tag, the jobs went through, once each has ended as it should."""
    return {check(events.result(60), record(queue, job_id)) for job_id, events in jobs.items()}


def check(events: Sequence[Event], job: Job) -> tuple[str, ...]:
    """Every event once and in order, and the tokens of a run that nobody disturbed. Answers the workers' tags."""
    assert job.state is State.SUCCEEDED
    assert job.deaths_total == 0
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    assert isinstance(events[-1], Completed)
    request = AddRequest(job.id, job.request.prompt_ids, job.request.sampling, 0, TOKENS)
    ids: list[int] = []
    tags: list[str] = []
    for event in events:
        if isinstance(event, Started | Resumed):
            tags.append(event.worker.rpartition("_")[2])
        if isinstance(event, Resumed):
            assert event.offsets == (len(ids),)
            assert 5 <= len(ids) < TOKENS, "it was not swapped in the midst of it"
        if isinstance(event, Delta):
            assert event.offset == len(ids)
            ids += event.token_ids
    assert ids == [token_at(request, offset) for offset in range(TOKENS)]
    return tuple(tags)


def record(queue: RedisQueue, job_id: str) -> Job:
    job = queue.get(job_id)
    assert job is not None
    return job
