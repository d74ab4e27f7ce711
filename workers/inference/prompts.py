"""Claimed jobs whose prompt lies in the blob store, until it is here. Knows leases and patience, not where blobs lie.

Owned by the intake's thread, which never waits here: each prompt is read beside it. Meanwhile the lease is held and
renewed like any other. A prompt that cannot be had now goes back after a rest, in which it takes no room.
"""

import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass

import structlog

from headrace.contract.errors import BlobDamaged, BlobNotFound, ErrorInfo, HeadraceError, StoreUnavailable
from headrace.contract.generation import Usage
from headrace.contract.job import Job, Lease, State
from headrace.queue.base import Ending, Outcome, Queue
from workers.inference.beside import beside
from workers.inference.facts import Ended, Left, Watcher, Why, why_refused
from workers.inference.holdings import Holdings
from workers.inference.settling import named

FETCH_S = 30.0
"""From the claim on. It holds also where a read never comes back, as on a network folder whose server is gone."""

REST_S = 5.0
"""How long a job whose prompt could not be read is kept before it goes back: nobody can claim it over and over."""

MOST_AT_ONCE = 8
"""Reads under way, those counted that were given up and have not come back."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class PromptParts:
    """`fetch` may take long and raises BlobNotFound, BlobDamaged, StoreUnavailable; `ring` asks for another `look`."""

    fetch: Callable[[Job], Job]
    queue: Queue
    holdings: Holdings
    tell: Watcher
    ring: Callable[[], None]
    clock: Callable[[], float] = time.monotonic


@dataclass(slots=True)
class _Wanted:
    job: Job
    give_up_at: float
    answer: Future[Job] | None = None
    rest_until: float | None = None


class Prompts:
    """`want` a job that is in the holdings, and `look` from time to time."""

    def __init__(self, parts: PromptParts) -> None:
        self._parts = parts
        self._wanted: dict[Lease, _Wanted] = {}
        self._reads: list[Future[Job]] = []

    def want(self, job: Job) -> None:
        self._wanted[job.lease] = _Wanted(job, self._parts.clock() + FETCH_S)
        self._begin()

    def look(self) -> tuple[Job, ...]:
        """Jobs whose prompt has come; they are wanted no longer. Raises StoreUnavailable; then nothing is forgotten."""
        for item in list(self._wanted.values()):
            self._settle(item)
        self._begin()
        here = tuple(job for item in self._wanted.values() if (job := _arrived(item)) is not None)
        for job in here:
            del self._wanted[job.lease]
        return here

    def give_back(self) -> None:
        """All of them, at once: this worker ends. While the store is away they are left to their leases."""
        try:
            for item in list(self._wanted.values()):
                self._release(item.job)
        except StoreUnavailable as error:
            log.warning("claimed jobs left to their leases", reason=error.message, jobs=len(self._wanted))

    def _begin(self) -> None:
        self._reads = [read for read in self._reads if not read.done()]
        for item in self._wanted.values():
            if len(self._reads) < MOST_AT_ONCE and item.answer is None and item.rest_until is None:
                item.answer = self._read(item.job)
                self._reads.append(item.answer)

    def _read(self, job: Job) -> Future[Job]:
        return beside(lambda: self._parts.fetch(job), self._parts.ring)

    def _settle(self, item: _Wanted) -> None:
        job, now = item.job, self._parts.clock()
        if self._parts.holdings.find(job.id) != job.lease:
            self._leave(job, Why.NOT_BEGUN)  # cancelled, or another's; whoever took it away has told the queue
        elif item.rest_until is not None:
            if now >= item.rest_until:
                self._release(job)
        elif item.answer is not None and item.answer.done():
            error = item.answer.exception()
            if isinstance(error, BlobNotFound | BlobDamaged):
                self._fail(job, error)
            elif error is not None:
                self._rest(item, error.message if isinstance(error, HeadraceError) else repr(error))
        elif now > item.give_up_at:
            self._rest(item, f"not read within {FETCH_S:g} s")

    def _rest(self, item: _Wanted, reason: str) -> None:
        log.warning("a prompt cannot be read now", reason=reason, **named(item.job))
        item.rest_until = self._parts.clock() + REST_S
        self._parts.holdings.rest(item.job.lease)

    def _release(self, job: Job) -> None:
        reply = self._parts.queue.release(job.lease)
        self._leave(job, Why.NOT_BEGUN if reply.outcome is Outcome.OK else why_refused(reply.outcome))

    def _fail(self, job: Job, error: HeadraceError) -> None:
        """What is lost does not come back: this job has failed, and no other."""
        ending = Ending(State.FAILED, Usage(0), error=ErrorInfo(error.code, error.explain()))
        reply = self._parts.queue.finish(job.lease, ending)
        log.warning("the prompt of a job is lost", code=error.code, reason=error.message, **named(job))
        if reply.outcome is not Outcome.OK:
            self._leave(job, why_refused(reply.outcome))
            return
        self._drop(job)
        self._parts.tell(Ended(job, ending, reply.state or ending.state))

    def _leave(self, job: Job, why: Why) -> None:
        self._drop(job)
        self._parts.tell(Left(job, why))

    def _drop(self, job: Job) -> None:
        del self._wanted[job.lease]
        self._parts.holdings.drop(job.lease)


def _arrived(item: _Wanted) -> Job | None:
    read = item.answer
    if item.rest_until is not None or read is None or not read.done() or read.exception() is not None:
        return None
    return read.result()
