"""The feeder's half that faces Redis and the blob store: what each held message needs next. Knows no broker.

A message is done when its job is: the result and the mark are in the blob store, and only then may it be acknowledged.
Every step may be repeated, by this feeder or another, so dying between any two of them loses and repeats nothing.
"""

import hashlib
import json
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from enum import Enum, auto
from queue import Empty

import structlog

from headrace.contract.errors import BlobDamaged, BlobNotFound, MessageUnreadable, StoreUnavailable
from headrace.contract.job import TERMINAL, State
from headrace.ledger.base import Delivery
from headrace.ledger.done import DoneMarks
from headrace.ledger.fleet_jobs import FleetJobs
from headrace.ledger.holder import Gone, News, Verdict, Verdicts
from headrace.ledger.message import Message, claim_check_key, fetch, read, wall_ms
from headrace.queue.base import Outcome
from headrace.store.blobs import BlobStore
from headrace.store.ledger_blobs import PARKED

PATIENCE_S = 30.0
"""How long a message that only a newer feeder understands is kept before it is given back."""

log = structlog.get_logger(__name__)


class Next(Enum):
    """What a message needs."""

    HOLD = auto()
    QUEUE = auto()
    """It was published, and whoever wanted to queue it has not done so yet."""
    LOOK = auto()
    """Redis does not know it: it is done, or lost."""
    SETTLE = auto()


def next_of(state: State | None) -> Next:
    if state is None:
        return Next.LOOK
    if state in TERMINAL:
        return Next.SETTLE
    return Next.QUEUE if state is State.ACCEPTED else Next.HOLD


@dataclass(frozen=True, slots=True)
class _Case:
    """A held message and when it was first looked at (monotonic seconds)."""

    delivery: Delivery
    message: Message
    since: float


class Adopter:
    """`turn` is for one thread; with `threads` it looks after so many messages at once, since each waits for blobs. It
    raises StoreUnavailable when Redis or the blob store is away; the next one goes on. What a message
    may do harms that message alone."""

    def __init__(
        self,
        jobs: FleetJobs,
        blobs: BlobStore,
        news: News,
        verdicts: Verdicts,
        clock: Callable[[], float] = time.monotonic,
        threads: int = 1,
    ) -> None:
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="adopter") if threads > 1 else None
        self._jobs = jobs
        self._blobs = blobs
        self._marks = DoneMarks(blobs)
        self._news = news
        self._verdicts = verdicts
        self._clock = clock
        self._unparked: dict[str, tuple[Delivery, MessageUnreadable]] = {}
        self._cases: dict[str, _Case] = {}

    def turn(self) -> None:
        self._hear()
        try:
            self._step_all()
        finally:
            # Behind all others, and even when those have failed: each may be refused for a reason of its own.
            self._park_all()

    def _step_all(self) -> None:
        states = self._jobs.states([case.message.job_id for case in self._cases.values()])
        due = [
            (case, state)
            for case in list(self._cases.values())
            if next_of(state := states.get(case.message.job_id)) is not Next.HOLD
        ]
        if self._threads is None:
            for case, state in due:
                self._try(case, state)
            return
        away: list[StoreUnavailable] = []

        def try_unless_away(case: _Case, state: State | None) -> None:
            """A store that is away is waited for once, not once for each."""
            try:
                if not away:
                    self._try(case, state)
            except StoreUnavailable as error:
                away.append(error)

        for done in [self._threads.submit(try_unless_away, case, state) for case, state in due]:
            done.result()
        if away:
            raise away[0]

    def _try(self, case: _Case, state: State | None) -> None:
        try:
            self._step(case, state)
        except StoreUnavailable:
            # The next turn begins with the others: what is wrong may be wrong with this one only.
            self._cases[case.delivery.receipt] = self._cases.pop(case.delivery.receipt)
            raise
        except MessageUnreadable as error:
            self._unparked[case.delivery.receipt] = case.delivery, error
            self._cases.pop(case.delivery.receipt, None)
        except Exception:
            # Whatever it was, the others go on. This one is held, unseen, until it is handed over: then it is tried
            # again.
            log.exception("ledger message set aside", job=case.message.job_id)
            self._cases.pop(case.delivery.receipt, None)

    def close(self) -> None:
        """Waits for nothing that is under way."""
        if self._threads is not None:
            self._threads.shutdown(wait=False, cancel_futures=True)

    def _hear(self) -> None:
        try:
            while True:
                heard = self._news.get_nowait()
                if isinstance(heard, Gone):
                    self._cases.pop(heard.receipt, None)
                    self._unparked.pop(heard.receipt, None)
                else:
                    self._read(heard)
        except Empty:
            pass

    def _read(self, delivery: Delivery) -> None:
        try:
            # Without the job, which takes ten times the room of its message: few are ever adopted.
            self._cases[delivery.receipt] = _Case(delivery, replace(read(delivery.body), job=None), self._clock())
        except MessageUnreadable as error:
            self._unparked[delivery.receipt] = delivery, error
        except Exception as error:
            # Nobody foresaw this body: it is as unreadable as any, and none of the others may suffer from it.
            log.exception("ledger message not read", receipt=delivery.receipt)
            reason = MessageUnreadable(f"Reading it failed: {error!r:.200}")
            self._unparked[delivery.receipt] = delivery, reason

    def _step(self, case: _Case, state: State | None) -> None:
        match next_of(state):
            case Next.SETTLE:
                self._settle(case)
            case Next.LOOK if self._marks.has(case.message.job_id):
                log.info("ledger message known as done", job=case.message.job_id, attempts=case.delivery.attempts)
                self._finish(case)
            case Next.LOOK | Next.QUEUE as what:
                self._adopt(case, lost=what is Next.LOOK)
            case _:
                pass

    def _adopt(self, case: _Case, *, lost: bool) -> None:
        if case.message.newer:
            if self._clock() - case.since > PATIENCE_S:
                self._say(case, Verdict.RELEASE)
            return
        message = fetch(self._blobs, read(case.delivery.body))
        job = message.to_adopt(self._jobs.now_ms() if message.deadline_at else 0)
        reply = self._jobs.accept(job, message.body_hash)
        if reply.outcome in (Outcome.EXISTS, Outcome.CONFLICT):
            # Its key, or the dead letter that it redrives, was used again after the loss. It was accepted all the same,
            # so it ends as well.
            reply = self._jobs.accept(replace(job, idem_key="", redrive_of=""), "")
        if reply.outcome is not Outcome.OK:
            return  # no room for it now: the next turn asks again
        log.info("ledger job adopted" if lost else "ledger job queued", job=job.id, attempts=case.delivery.attempts)

    def _settle(self, case: _Case) -> None:
        job_id = case.message.job_id
        job = self._jobs.get(job_id)
        if job is None or not job.ended:
            return  # lost since we looked: the next turn sees to it
        result = None
        if job.state is State.SUCCEEDED:
            try:
                result = self._jobs.result(job_id)
            except (BlobNotFound, BlobDamaged) as error:
                log.error("ledger result is lost", job=job_id, reason=error.message)
        self._marks.put(job, result)
        self._jobs.let_go(job)
        self._finish(case)

    def _finish(self, case: _Case) -> None:
        """Its job is marked as done: nobody needs the message, nor what it is a claim check on."""
        if case.message.ref:
            self._blobs.delete(claim_check_key(case.message.job_id))
        self._say(case, Verdict.ACK)

    def _park_all(self) -> None:
        for receipt, (delivery, error) in list(self._unparked.items()):
            try:
                self._park(delivery, error)
            except StoreUnavailable:
                self._unparked[receipt] = self._unparked.pop(receipt)  # the next turn begins with another
                raise
            except Exception:
                log.exception("ledger message not parked", receipt=receipt)
            self._unparked.pop(receipt, None)

    def _park(self, delivery: Delivery, error: MessageUnreadable) -> None:
        """Out of the queue and into the blob store, where a person finds it with the reason."""
        key = f"{PARKED}{hashlib.sha256(delivery.body).hexdigest()}"
        kept = {
            "reason": error.message,
            "parked_at": wall_ms(),
            "attempts": delivery.attempts,
            "body": delivery.body.decode(errors="backslashreplace"),
        }
        self._blobs.put_if_absent(key, json.dumps(kept).encode())
        log.error("ledger message parked", blob=key, reason=error.message, attempts=delivery.attempts)
        self._verdicts.put((delivery.receipt, Verdict.ACK))

    def _say(self, case: _Case, verdict: Verdict) -> None:
        self._cases.pop(case.delivery.receipt, None)
        self._verdicts.put((case.delivery.receipt, verdict))
