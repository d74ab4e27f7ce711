"""Ids that wait to be cancelled: none is lost on the way, and nobody waits for those of others."""

import asyncio

import pytest

from gateway import abandoned as module
from gateway.abandoned import Abandoned
from headrace.contract.errors import StoreUnavailable
from headrace.queue.async_redis import AsyncRedisQueue
from headrace.queue.base import FinishReply, Outcome


class Queue(AsyncRedisQueue):
    """Remembers what it was asked to cancel; `trouble` is raised for an id, `hanging` ids are never answered."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.trouble: dict[str, Exception] = {}
        self.hanging: set[str] = set()
        self.hangs = asyncio.Event()

    async def cancel(self, job_id: str) -> FinishReply:
        self.asked.append(job_id)
        if job_id in self.hanging:
            self.hangs.set()
            await asyncio.Event().wait()
        if job_id in self.trouble:
            raise self.trouble[job_id]
        return FinishReply(Outcome.OK)


async def test_what_is_being_cancelled_when_its_task_ends_is_not_lost() -> None:
    queue = Queue()
    abandoned = Abandoned(queue)
    queue.hanging = {"a"}
    task = asyncio.create_task(abandoned.cancel(["a", "b"]))
    await asyncio.wait_for(queue.hangs.wait(), 10)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    queue.hanging = set()
    await abandoned.cancel_all()
    assert queue.asked == ["a", "a", "b"]


async def test_each_asks_for_its_own() -> None:
    queue = Queue()
    abandoned = Abandoned(queue)
    for number in range(3):
        abandoned.add(f"other{number}")
    await abandoned.cancel(["mine"])
    assert queue.asked == ["mine"]
    await abandoned.cancel_all()
    assert queue.asked == ["mine", "other0", "other1", "other2"]


@pytest.mark.parametrize(
    ("trouble", "asked"), [(StoreUnavailable("Away."), ["a"]), (RuntimeError("Of this one."), ["a", "b"])]
)
async def test_trouble_keeps_an_id_and_only_that_of_the_store_stops_the_others(
    trouble: Exception, asked: list[str]
) -> None:
    queue = Queue()
    abandoned = Abandoned(queue)
    queue.trouble = {"a": trouble}
    await abandoned.cancel(["a", "b"])
    assert queue.asked == asked
    queue.asked.clear()
    queue.trouble = {}
    await abandoned.cancel_all()
    assert queue.asked == ["a", "b"][: 3 - len(asked)]


async def test_beyond_the_limit_the_oldest_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_KEPT", 2)
    queue = Queue()
    abandoned = Abandoned(queue)
    for job_id in ("a", "b", "c"):
        abandoned.add(job_id)
    await abandoned.cancel_all()
    assert queue.asked == ["b", "c"]
