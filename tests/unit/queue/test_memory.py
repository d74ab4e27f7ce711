"""What the memory queue offers besides the verbs: live events to a callback, and threads that do not collide."""

import threading
from typing import Any

from headrace.contract.job import State
from headrace.queue.base import Append
from headrace.queue.memory import MemoryQueue
from tests.contracts.bench import claim_request, delta, make_job


def test_events_are_published_with_their_text_and_listeners_counted() -> None:
    heard: list[tuple[str, dict[str, Any]]] = []

    def publish(job_id: str, event: dict[str, Any]) -> int:
        heard.append((job_id, event))
        return 3

    queue, job = MemoryQueue(lambda: 1, publish=publish), make_job()
    queue.accept(job)
    [mine] = queue.claim(claim_request())
    [reply] = queue.append([Append(mine.lease, (delta(0, (1,)),))])
    assert reply.listeners == 3
    assert [(job_id, event["type"]) for job_id, event in heard] == [
        (job.id, "accepted"),
        (job.id, "started"),
        (job.id, "delta"),
    ]
    assert heard[-1][1]["text"] == "text"
    assert [event.seq for event in queue.events(job.id, after_seq=1)] == [2, 3]


def test_threads_share_the_jobs_out() -> None:
    queue = MemoryQueue(lambda: 1)
    for _ in range(100):
        queue.accept(make_job())
    claimed: list[str] = []

    def work(name: str) -> None:
        while jobs := queue.claim(claim_request(name, max_jobs=3)):
            claimed.extend(job.id for job in jobs)

    threads = [threading.Thread(target=work, args=(f"w{i}",)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(claimed) == sorted(queue.job_ids())
    assert all((job := queue.get(job_id)) is not None and job.state is State.LEASED for job_id in claimed)
