"""Claims jobs: how much, and when. Knows the queue and the budget, not the engine.

It looks when the lane's wake channel rings, when a job here has ended, and once a second besides. A job whose prompt
lies in the blob store waits for it in `prompts`, and holds up no other.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

import structlog

from headrace.contract.errors import JobNotFound, JournalExpired, StoreUnavailable
from headrace.contract.job import Job
from headrace.queue.base import ClaimRequest, Queue
from headrace.store.journal import Journaled
from headrace.telemetry.metrics import Recorder
from workers.inference.facts import Claimed, Left, Watcher, Why
from workers.inference.holdings import Holdings, Load
from workers.inference.inbox import Inbox, Take
from workers.inference.messages import Ready
from workers.inference.prompts import PromptParts, Prompts

LOOK_S = 1.0
MICRO_BATCH = 8
"""Most jobs of one claim: several workers on a lane share what comes in a burst."""

PACE_S = 0.005
"""Between two looks while jobs run here: no longer than an engine's step, so what comes meanwhile costs one claim and
joins the same step. A worker with nothing to do looks at once."""

log = structlog.get_logger(__name__)


class Pauser(Enum):
    """Who asked to claim nothing new. What one of them takes back does not speak for the other."""

    PERSON = "person"
    NOTICE = "notice"


@dataclass(frozen=True, slots=True)
class Room:
    """What may be claimed now."""

    jobs: int
    kv_tokens: int


NO_ROOM = Room(0, 0)


def room(load: Load, capacity: int, max_jobs: int) -> Room:
    """`capacity` is the engine's KV budget in tokens. The estimates over-commit on purpose: preemption is cheap.

    A job that runs alone leaves no room, whatever is free.
    """
    jobs = min(max_jobs - load.jobs, MICRO_BATCH)
    kv_tokens = capacity - load.kv_tokens
    return NO_ROOM if load.solo or jobs <= 0 or kv_tokens <= 0 else Room(jobs, kv_tokens)


@dataclass(frozen=True, slots=True)
class IntakeParts:
    """`read_journal` answers what earlier attempts left of each choice of a job; `fetch_prompt` reads what is in the
    blob store, and may take long; `pause` is called with seconds to let pass."""

    worker: str
    lane: str
    max_jobs: int
    queue: Queue
    read_journal: Callable[[Job], tuple[Journaled, ...]]
    holdings: Holdings
    metrics: Recorder
    inbox: Inbox
    fetch_prompt: Callable[[Job], Job] = lambda job: job
    tell: Watcher = lambda _: None
    pause: Callable[[float], None] = time.sleep


class Intake:
    """`run` is the thread. Others open and close it, pause it and wake it."""

    def __init__(self, parts: IntakeParts) -> None:
        self._parts = parts
        self._ready: Ready | None = None
        self._trusted = True
        self._paused_by: set[Pauser] = set()
        self._stopping = False
        self._bell = threading.Event()
        self._prompts = Prompts(PromptParts(parts.fetch_prompt, parts.queue, parts.holdings, parts.tell, self.wake))

    def open(self, ready: Ready) -> None:
        """The engine can take work."""
        self._ready = ready
        self.wake()

    def close(self) -> None:
        """The engine cannot take work."""
        self._ready = None

    def trust(self, trusted: bool) -> None:
        """Whether leases are being renewed; without that nothing is claimed."""
        self._trusted = trusted
        if trusted:
            self.wake()

    @property
    def paused(self) -> bool:
        """Whether anybody asked to claim nothing new, and has not taken it back."""
        return bool(self._paused_by)

    def pause(self, paused: bool, by: Pauser) -> None:
        """Claim nothing new, or take that back; what runs goes on. From any thread."""
        if paused:
            self._paused_by.add(by)
        else:
            self._paused_by.discard(by)
            self.wake()

    def stop(self) -> None:
        self._stopping = True
        self.wake()

    def wake(self) -> None:
        self._bell.set()

    def run(self) -> None:
        away = False
        while not self._stopping:
            self._bell.wait(LOOK_S)
            self._bell.clear()
            try:
                self.take_up()
                while self.claim():
                    pass
                away = False
                if self._parts.holdings.load().jobs:
                    self._parts.pause(PACE_S)
            except StoreUnavailable as error:
                if not away:
                    log.warning("store is away, nothing is claimed", reason=error.message)
                away = True
        self._prompts.give_back()

    def take_up(self) -> None:
        """Hand over the jobs whose prompt has come. Raises StoreUnavailable."""
        if self._trusted and not self._stopping:
            self._hand_over(self._prompts.look())

    def claim(self) -> int:
        """Claim once; how many came. Raises StoreUnavailable."""
        ready, parts = self._ready, self._parts
        if ready is None or not self._trusted or self.paused or self._stopping:
            return 0
        load = parts.holdings.load()
        free = room(load, ready.kv_tokens, parts.max_jobs)
        if free == NO_ROOM:
            return 0
        request = ClaimRequest(
            lanes=(parts.lane,),
            worker=parts.worker,
            revision=ready.facts.revision,
            digest=ready.digest,
            kv_tokens=free.kv_tokens,
            capacity=ready.kv_tokens,
            max_jobs=free.jobs,
            held=load.jobs,
        )
        jobs = parts.queue.claim(request)
        parts.holdings.take(jobs)
        parts.metrics.add("headrace_worker_jobs_claimed_total", len(jobs))
        for job in jobs:
            parts.tell(Claimed(job))
            if job.prompt_ref:
                self._prompts.want(job)
        self._hand_over(tuple(job for job in jobs if not job.prompt_ref))
        return len(jobs)

    def _hand_over(self, jobs: tuple[Job, ...]) -> None:
        for index, job in enumerate(jobs):
            try:
                choices = self._parts.read_journal(job)
            except (JobNotFound, JournalExpired) as error:
                log.warning("claimed job is gone", job=job.id, reason=error.message)
                self._drop(job)
                continue
            except StoreUnavailable:
                # Not begun here: what is not held is given back at a renewal, or its lease runs out.
                for left in jobs[index:]:
                    self._drop(left)
                raise
            self._parts.inbox.put(Take(job, choices))

    def _drop(self, job: Job) -> None:
        self._parts.holdings.drop(job.lease)
        self._parts.tell(Left(job, Why.NOT_BEGUN))
