"""Submit: an intent becomes a frozen request on a lane, durable before the caller hears of it. Knows no HTTP."""

import secrets
from dataclasses import dataclass
from typing import Protocol

from headrace.contract.errors import HeadraceError, IdempotencyConflict, JobNotFound, QueueFull
from headrace.contract.generation import FrozenRequest
from headrace.contract.ids import new_job_id
from headrace.contract.job import Job
from headrace.queue.base import AcceptReply, Outcome
from headrace.store.cards import CardBook
from headrace.submission.idempotency import HEADER, check_key
from headrace.submission.intent import Intent
from headrace.submission.limits import settle_max_tokens
from headrace.submission.prompting import Prompting

RETRY_FULL_S = 5.0


class AsyncQueue(Protocol):
    """The two verbs of the Queue that submit needs, awaited."""

    async def accept(self, job: Job, *, body_hash: str = "") -> AcceptReply: ...

    async def get(self, job_id: str) -> Job | None: ...


@dataclass(frozen=True, slots=True)
class Submitted:
    """`job` is as it was given to the queue, so the server's times are not in it yet; with `replayed` it is the
    earlier job's record as it is now."""

    job_id: str
    job: Job
    replayed: bool = False


class Submitter:
    """The one road in. For one event loop."""

    def __init__(self, queue: AsyncQueue, cards: CardBook, prompting: Prompting | None = None) -> None:
        self._queue = queue
        self._cards = cards
        self._prompting = prompting or Prompting(cards)

    async def submit(
        self,
        intent: Intent,
        *,
        tenant: str = "default",
        idem_key: str = "",
        body_hash: str = "",
        traceparent: str = "",
    ) -> Submitted:
        """Returns when the job is durable.

        Raises ModelNotFound, ContextLengthExceeded, InvalidRequest, IdempotencyConflict (the key was used with
        another body), QueueFull or StoreUnavailable; after each of them there is no job, except that a
        StoreUnavailable may have lost the answer and not the call: say it again with the same `idem_key`.
        """
        check_key(idem_key)
        release = await self._cards.get(intent.model)
        card = release.card
        prompt_ids = await self._prompting.prompt_ids(intent, card)
        max_tokens = settle_max_tokens(card, intent.kind, len(prompt_ids), intent.max_tokens, source=intent.source)
        seed = secrets.randbits(63) if intent.seed is None else intent.seed
        job = Job(
            id=new_job_id(),
            model=card.id,
            lane=release.lane,
            revision=card.revision,
            job_class=intent.job_class,
            kind=intent.kind,
            request=FrozenRequest(prompt_ids, intent.sampling(seed), max_tokens, intent.stop),
            tenant=tenant,
            deadline_at=intent.deadline_ms,
            idem_key=idem_key,
            traceparent=traceparent,
            metadata=intent.metadata,
        )
        return await self._settle(job, await self._queue.accept(job, body_hash=body_hash))

    async def _settle(self, job: Job, reply: AcceptReply) -> Submitted:
        match reply.outcome:
            case Outcome.OK:
                return Submitted(reply.job_id, job)
            case Outcome.EXISTS:
                return await self._replay(reply.job_id)
            case Outcome.CONFLICT:
                raise IdempotencyConflict(
                    f"`{HEADER}` was used before with another body, for {reply.job_id}.",
                    param=HEADER,
                    next_step="Use a new key for a new request.",
                )
            case Outcome.FULL:
                raise QueueFull("The queue is full.", next_step="Try again later.", retry_after_s=RETRY_FULL_S)
            case _:
                raise HeadraceError(f"The queue answered {reply.outcome} to a submission.")

    async def _replay(self, job_id: str) -> Submitted:
        earlier = await self._queue.get(job_id)
        if earlier is None:
            raise JobNotFound(f"The job of this `{HEADER}`, {job_id}, is past its retention.", param=HEADER)
        return Submitted(job_id, earlier, replayed=True)
