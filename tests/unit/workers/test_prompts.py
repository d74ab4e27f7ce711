"""Prompts that lie in the blob store: who waits for them, for how long, and what becomes of a job that has none."""

import threading
from dataclasses import replace

import pytest

from headrace.contract.errors import BlobDamaged, BlobNotFound, BlobsUnavailable, HeadraceError
from headrace.contract.job import Job, State
from headrace.queue.base import ClaimRequest
from headrace.queue.memory import MemoryQueue
from headrace.store.journal import Journaled
from headrace.telemetry.metrics import Recorder
from tests.unit.workers.desk import READY
from tests.unit.workers.jobs import make_job
from workers.inference.facts import Claimed, Ended, Fact, Left, Why
from workers.inference.holdings import Holdings, Load
from workers.inference.inbox import Inbox, Take
from workers.inference.intake import Intake, IntakeParts
from workers.inference.prompts import FETCH_S, MOST_AT_ONCE, REST_S, PromptParts, Prompts


class Shelf:
    """Prompts on a memory queue with time in hand; reading one waits for `open`, then does as `trouble` says."""

    def __init__(self) -> None:
        self.now = 100.0
        self.queue = MemoryQueue(lambda: int(self.now * 1000))
        self.holdings = Holdings(on_room=lambda: None)
        self.facts: list[Fact] = []
        self.open = threading.Event()
        self.rung = threading.Semaphore(0)
        self.reading = threading.Semaphore(0)
        self.trouble: HeadraceError | None = None
        parts = PromptParts(
            self.fetch, self.queue, self.holdings, self.facts.append, self.rung.release, clock=lambda: self.now
        )
        self.prompts = Prompts(parts)

    def fetch(self, job: Job) -> Job:
        self.reading.release()
        assert self.open.wait(10)
        if self.trouble is not None:
            raise self.trouble
        return replace(job, request=replace(job.request, prompt_ids=(7, 8, 9)))

    def want(self, *names: str) -> list[Job]:
        for name in names:
            self.queue.accept(make_job(name, state=State.ACCEPTED, lease_id="", epoch=0, prompt_ref="blob:prompts/x"))
        jobs = list(self.queue.claim(ClaimRequest(("m@stable",), "w", "r", "d", 10_000, 10_000, len(names))))
        self.holdings.take(jobs)
        for job in jobs:
            self.prompts.want(job)
        return jobs

    def look(self, seconds: float = 0.0) -> tuple[Job, ...]:
        self.now += seconds
        return self.prompts.look()

    def wait(self, times: int = 1) -> None:
        """Until so many reads have come back."""
        for _ in range(times):
            assert self.rung.acquire(timeout=10)

    def record(self, job: Job) -> Job:
        record = self.queue.get(job.id)
        assert record is not None
        return record


def test_a_prompt_that_comes_is_handed_on_once() -> None:
    shelf = Shelf()
    [job] = shelf.want("job_1")
    assert shelf.look() == ()
    shelf.open.set()
    shelf.wait()
    [ready] = shelf.look()
    assert (ready.lease, ready.request.prompt_ids) == (job.lease, (7, 8, 9))
    assert shelf.look(FETCH_S + REST_S) == ()
    assert shelf.holdings.leases() == (job.lease,)
    assert shelf.facts == []


def test_a_read_that_never_comes_back_gives_the_job_back_after_a_rest() -> None:
    shelf = Shelf()
    [job] = shelf.want("job_1")
    shelf.look(FETCH_S + 1)
    assert shelf.holdings.leases() == (job.lease,)
    assert shelf.holdings.load() == Load()
    shelf.look(REST_S - 1)
    assert shelf.record(job).state is State.LEASED
    shelf.look(2)
    assert (shelf.record(job).state, shelf.record(job).retries) == (State.QUEUED, 0)
    assert shelf.holdings.leases() == ()
    assert shelf.facts == [Left(job, Why.NOT_BEGUN)]
    shelf.open.set()
    shelf.wait()
    assert shelf.look() == ()


def test_while_the_store_is_away_the_job_rests_at_once() -> None:
    shelf = Shelf()
    shelf.trouble = BlobsUnavailable("The test took it away.")
    shelf.open.set()
    [job] = shelf.want("job_1")
    shelf.wait()
    shelf.look()
    assert shelf.holdings.load() == Load()
    shelf.look(REST_S)
    assert shelf.record(job).state is State.QUEUED


@pytest.mark.parametrize("trouble", [BlobNotFound("It is gone."), BlobDamaged("It is damaged.")])
def test_a_lost_prompt_fails_its_job_and_no_other(trouble: HeadraceError) -> None:
    shelf = Shelf()
    shelf.trouble = trouble
    [lost, other] = shelf.want("job_1", "job_2")
    shelf.holdings.drop(other.lease)  # somebody cancelled it
    shelf.open.set()
    shelf.wait(2)
    assert shelf.look() == ()
    record = shelf.record(lost)
    assert record.state is State.FAILED
    assert record.error is not None
    assert record.error.code == trouble.code
    assert shelf.record(other).state is State.LEASED
    assert [type(fact) for fact in shelf.facts] == [Ended, Left]
    assert shelf.holdings.leases() == ()


def test_a_job_that_was_cancelled_meanwhile_is_not_begun() -> None:
    shelf = Shelf()
    [job] = shelf.want("job_1")
    shelf.queue.cancel(job.id)
    shelf.holdings.drop(job.lease)
    shelf.open.set()
    shelf.wait()
    assert shelf.look() == ()
    assert shelf.record(job).state is State.CANCELLED
    assert shelf.facts == [Left(job, Why.NOT_BEGUN)]


def test_so_many_are_read_at_once() -> None:
    shelf = Shelf()
    jobs = shelf.want(*(f"job_{index}" for index in range(MOST_AT_ONCE + 2)))
    for _ in range(MOST_AT_ONCE):
        assert shelf.reading.acquire(timeout=10)
    shelf.look()
    assert not shelf.reading.acquire(blocking=False)
    shelf.open.set()
    shelf.wait(MOST_AT_ONCE)
    ready = shelf.look()
    shelf.wait(2)
    ready += shelf.look()
    assert {job.id for job in ready} == {job.id for job in jobs}


def test_at_the_end_all_go_back() -> None:
    shelf = Shelf()
    jobs = shelf.want("job_1", "job_2")
    shelf.prompts.give_back()
    assert [shelf.record(job).state for job in jobs] == [State.QUEUED] * 2
    shelf.open.set()


def test_a_slow_prompt_holds_up_no_other_job() -> None:
    """Of one claim: the job with its prompt is handed over at once, the other one when its prompt is there."""
    shelf, inbox = Shelf(), Inbox()
    facts: list[Fact] = []
    intake = Intake(
        IntakeParts(
            worker="w_test",
            lane="m@stable",
            max_jobs=8,
            queue=shelf.queue,
            read_journal=lambda job: (Journaled(),),
            holdings=shelf.holdings,
            metrics=Recorder(),
            inbox=inbox,
            fetch_prompt=shelf.fetch,
            tell=facts.append,
        )
    )
    intake.open(replace(READY, facts=replace(READY.facts, revision="r")))
    for name, ref in (("job_1", "blob:prompts/job_1"), ("job_2", "")):
        shelf.queue.accept(make_job(name, state=State.ACCEPTED, lease_id="", epoch=0, prompt_ref=ref))
    assert intake.claim() == 2
    take = inbox.get(0)
    assert isinstance(take, Take)
    assert take.job.id == "job_2"
    assert {lease.job_id for lease in shelf.holdings.leases()} == {"job_1", "job_2"}
    assert [type(fact) for fact in facts] == [Claimed, Claimed]
    intake.take_up()
    assert inbox.get(0) is None
    shelf.open.set()
    while take is None or take.job.id != "job_1":
        intake.take_up()
        message = inbox.get(0.01)
        take = message if isinstance(message, Take) else None
    assert take.job.request.prompt_ids == (7, 8, 9)
