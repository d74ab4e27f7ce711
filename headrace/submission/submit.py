"""Submit: an intent becomes a frozen request on a lane, durable before the caller hears of it. Knows no HTTP."""

import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from headrace.contract.errors import (
    ContextLengthExceeded,
    HeadraceError,
    IdempotencyConflict,
    InvalidRequest,
    JobNotFound,
    ModelNotFound,
    QueueFull,
)
from headrace.contract.generation import FrozenRequest
from headrace.contract.ids import new_job_id
from headrace.contract.job import Fallback, Job, State
from headrace.queue.base import AcceptReply, Outcome
from headrace.store.cards import CardBook, Release
from headrace.submission.idempotency import HEADER, check_key, keys_for
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
    """`job` is as it was accepted, with the server's times; with `replayed` it is the earlier job's record as it is
    now."""

    job_id: str
    job: Job
    replayed: bool = False


class Submitter:
    """The one road in. For one event loop."""

    def __init__(
        self,
        queue: AsyncQueue,
        cards: CardBook,
        prompting: Prompting | None = None,
        abandon: Callable[[str], None] = lambda _: None,
    ) -> None:
        """`abandon` is told the id of each job that nobody will ask for: it may be queued, and should be cancelled."""
        self._queue = queue
        self._cards = cards
        self._prompting = prompting or Prompting(cards)
        self._abandon = abandon

    @property
    def queue(self) -> AsyncQueue:
        """Where jobs are handed in, for who has them frozen."""
        return self._queue

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
        StoreUnavailable may have lost the answer and not the call: say it again with the same `idem_key`. Without a
        key such a job is abandoned.
        """
        (submitted,) = await self.submit_all(
            (intent,), tenant=tenant, idem_key=idem_key, body_hash=body_hash, traceparent=traceparent
        )
        return submitted

    async def submit_all(
        self,
        intents: Sequence[Intent],
        *,
        tenant: str = "default",
        idem_key: str = "",
        body_hash: str = "",
        traceparent: str = "",
    ) -> tuple[Submitted, ...]:
        """The jobs of one request, in order; raises like `submit`. Nothing is queued before every one of them is known
        to be good, and what was queued before an error is abandoned, unless the key can find it again."""
        check_key(idem_key)
        jobs = [
            replace(await self._freeze(intent), tenant=tenant, idem_key=key, traceparent=traceparent)
            for intent, key in zip(intents, keys_for(idem_key, len(intents)), strict=True)
        ]
        done: list[Submitted] = []
        try:
            for job in jobs:
                reply = await self._queue.accept(job, body_hash=body_hash)
                done.append(await self._settle(job, reply))
        except BaseException:
            if not idem_key:
                for job in jobs[: len(done) + 1]:
                    self._abandon(job.id)
            raise
        return tuple(done)

    async def submit_frozen(self, job: Job, *, body_hash: str = "") -> Submitted:
        """As `submit`, for a request that was frozen before; its key is the job's own."""
        check_key(job.idem_key)
        try:
            return await self._settle(job, await self._queue.accept(job, body_hash=body_hash))
        except BaseException:
            if not job.idem_key:
                self._abandon(job.id)
            raise

    async def _freeze(self, intent: Intent) -> Job:
        seed = secrets.randbits(63) if intent.seed is None else intent.seed
        release, request = await self._frozen_for(intent.model, intent, seed)
        return Job(
            id=new_job_id(),
            model=release.card.id,
            lane=release.lane,
            revision=release.card.revision,
            job_class=intent.job_class,
            kind=intent.kind,
            request=request,
            deadline_at=intent.deadline_ms,
            fallback=await self._fallback(intent, seed, release),
            metadata=intent.metadata,
        )

    async def _frozen_for(self, model: str, intent: Intent, seed: int) -> tuple[Release, FrozenRequest]:
        release = await self._cards.get(model)
        card = release.card
        prompt_ids = await self._prompting.prompt_ids(intent, card)
        max_tokens = settle_max_tokens(card, intent.kind, len(prompt_ids), intent.max_tokens, source=intent.source)
        return release, FrozenRequest(
            prompt_ids,
            intent.sampling(seed),
            max_tokens,
            intent.stop,
            logprobs=intent.logprobs,
            prompt_logprobs=intent.logprobs if intent.echo else None,
            echo=intent.echo,
        )

    async def _fallback(self, intent: Intent, seed: int, first: Release) -> Fallback | None:
        """Ids of one vocabulary mean nothing in another, so only a prompt of text can be made for two models."""
        if not intent.fallback_model:
            return None
        if isinstance(intent.prompt, tuple):
            raise InvalidRequest(
                "`fallback_model` needs a prompt of text: token ids belong to one model.", param="fallback_model"
            )
        try:
            release, request = await self._frozen_for(intent.fallback_model, intent, seed)
        except (ModelNotFound, ContextLengthExceeded) as error:
            error.param = "fallback_model"
            raise
        if release.lane == first.lane:
            raise InvalidRequest(
                f"`fallback_model` is `{release.card.id}`, as `model` is.",
                param="fallback_model",
                next_step="Name another model: the first one is tried three times before.",
            )
        return Fallback(release.card.id, release.lane, release.card.revision, request)

    async def _settle(self, job: Job, reply: AcceptReply) -> Submitted:
        match reply.outcome:
            case Outcome.OK:
                return Submitted(reply.job_id, _as_queued(job, reply.created_at))
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


def _as_queued(job: Job, at: int | None) -> Job:
    if at is None:
        return job
    deadline_at = None if job.deadline_at is None else at + job.deadline_at
    return replace(job, state=State.QUEUED, created_at=at, queued_at=at, deadline_at=deadline_at)
