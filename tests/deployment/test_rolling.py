"""A rolling upgrade, and its rollback: two versions of the record on one store, and no job notices.

The next version has one more field, which its gateway fills. Old workers finish its jobs and new ones those of the old
gateway, in flight, and what an old process does not know it leaves as it was.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import pytest
import redis

from headrace.client import Client, JobHandle, Patience
from headrace.contract.events import Completed, Delta, Event
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

TOKENS = 150
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
        first = old.worker("a")
        wait_ready(store, first)
        before = submit(old_gateway, new_gateway, "before")
        second = swap(first, new, "b", before, queue)
        ended(before, second, store, queue)

        # Its rollback, while the new gateway's jobs run.
        after = submit(new_gateway, old_gateway, "after")
        third = swap(second, old, "c", after, queue)
        ended(after, third, store, queue)

        # Both at once: three jobs are all that one of them takes.
        fourth = new.worker("d")
        wait_ready(store, fourth)
        both = submit(old_gateway, new_gateway, "both"), submit(new_gateway, old_gateway, "too")
        owners = {owner(store, job_id) for jobs in both for job_id in checked(jobs, store, queue)}
        assert {name.rpartition("_")[2] for name in owners} == {"c", "d"}

        for job_id in [*before, *after, *both[0], *both[1]]:
            noted = job_id in after or job_id in both[1]
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


def swap(worker: Worker, version: Version, tag: str, jobs: Following, queue: RedisQueue) -> Worker:
    """Another version's worker in place of this one, while all of these jobs stream."""
    wait_for(lambda: all(offset(queue, job_id) >= 5 for job_id in jobs), 30)
    worker.drain()
    records = [record(queue, job_id) for job_id in jobs]
    assert [job.state for job in records] == [State.QUEUED] * len(jobs)
    assert all(5 <= job.next_offset[0] < TOKENS for job in records)
    return version.worker(tag)


def ended(jobs: Following, worker: Worker, store: redis.Redis, queue: RedisQueue) -> None:
    """All as they should be, and by this worker, which is ready for more."""
    assert {owner(store, job_id) for job_id in checked(jobs, store, queue)} == {owner_of(store, worker)}


def checked(jobs: Following, store: redis.Redis, queue: RedisQueue) -> Sequence[str]:
    for job_id, events in jobs.items():
        check(events.result(60), record(queue, job_id))
    return list(jobs)


def check(events: Sequence[Event], job: Job) -> None:
    """Every event once and in order, and the tokens of a run that nobody disturbed."""
    assert job.state is State.SUCCEEDED
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    assert isinstance(events[-1], Completed)
    request = AddRequest(job.id, job.request.prompt_ids, job.request.sampling, 0, TOKENS)
    ids: list[int] = []
    for event in events:
        if isinstance(event, Delta):
            assert event.offset == len(ids)
            ids += event.token_ids
    assert ids == [token_at(request, offset) for offset in range(TOKENS)]


def record(queue: RedisQueue, job_id: str) -> Job:
    job = queue.get(job_id)
    assert job is not None
    return job


def offset(queue: RedisQueue, job_id: str) -> int:
    return record(queue, job_id).next_offset[0]


def owner(store: redis.Redis, job_id: str) -> str:
    value = store.hget(f"hr:job:{job_id}", "owner")
    assert isinstance(value, bytes)
    return value.decode()


def owner_of(store: redis.Redis, worker: Worker) -> str:
    (name,) = [beat.worker for beat in read_beats(store) if beat.worker.endswith(worker.name)]
    return name
