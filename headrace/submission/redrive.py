"""Redrive: a dead job's frozen request is accepted again as a new job, and then the dead one leaves its set.

Knows letters and cards, no HTTP. It does a bounded number at once; whoever wants many, or a rate, asks again.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from headrace.contract.dead_letter_query import DeadLetterFilter, Place
from headrace.contract.errors import (
    ContextLengthExceeded,
    ErrorInfo,
    HeadraceError,
    JobNotFound,
    QueueFull,
    RevisionGone,
    StoreUnavailable,
)
from headrace.contract.ids import new_job_id
from headrace.contract.job import Job
from headrace.queue.base import Outcome, Timing
from headrace.store.async_payloads import AsyncPayloads
from headrace.store.cards import CardBook, Release
from headrace.store.dead_letters import Absent, DeadLetters
from headrace.submission.submit import RETRY_FULL_S, AsyncQueue


@dataclass(frozen=True, slots=True)
class Redriven:
    """What became of one letter. `job_id` is the job that takes its place: empty in a dry run, and where an `error`
    says why the letter stays parked."""

    letter_id: str
    job_id: str = ""
    error: ErrorInfo | None = None


@dataclass(frozen=True, slots=True)
class RedrivePage:
    """`after` is where to go on; None when there is nothing left to do."""

    outcomes: tuple[Redriven, ...]
    after: Place | None


def idem_key_of(letter_id: str) -> str:
    """The idempotency key of a letter's redrive. Its space keeps it apart from every key that a client may send."""
    return f"redrive {letter_id}"


def release_for(letter: Job, releases: Sequence[Release]) -> Release:
    """Where a letter's work can be done: the release of its model that has its revision, its own lane before others.

    Raises RevisionGone where there is none, ContextLengthExceeded where no worker of it can hold the job any more.
    """
    fitting = [
        each for each in releases if each.card.revision == letter.revision and each.lane.startswith(f"{letter.model}@")
    ]
    if not fitting:
        raise RevisionGone(
            f"No card of `{letter.model}` has revision {letter.revision[:16]} any more, and another may not go on.",
            next_step="Start a worker of that revision and redrive again, or submit the work anew and purge this.",
        )
    release = min(fitting, key=lambda each: (each.lane != letter.lane, each.lane))
    prompt_tokens = letter.usage.prompt_tokens if letter.usage else len(letter.request.prompt_ids)
    tokens = prompt_tokens + letter.request.max_tokens * letter.request.n
    if tokens > release.card.max_tokens_in_all:
        raise ContextLengthExceeded(
            f"The job may need {tokens:,} tokens, and no worker of {release.lane} holds more than"
            f" {release.card.max_tokens_in_all:,} now.",
            next_step="Start a worker with a larger KV budget and redrive again.",
        )
    return release


def fresh(letter: Job, lane: str, deadline_ms: int | None = None) -> Job:
    """The new job: what the letter asked for, and nothing of what became of it. The letter has its prompt ids and those
    of its fallback."""
    return Job(
        id=new_job_id(),
        model=letter.model,
        lane=lane,
        revision=letter.revision,
        job_class=letter.job_class,
        kind=letter.kind,
        request=letter.request,
        tenant=letter.tenant,
        deadline_at=deadline_ms,
        fallback=letter.fallback,
        fallback_of=letter.fallback_of,
        idem_key=idem_key_of(letter.id),
        redrive_of=letter.id,
        replay_of=letter.replay_of,
        digest_wanted=letter.digest_wanted,
        traceparent=letter.traceparent,
        metadata=letter.metadata,
    )


class Redriver:
    """For one event loop. `tell` hears of each new job.

    Safe to be killed anywhere and to be said again: with the new job's acceptance its name is written into the letter,
    which leaves its set only after that.
    """

    def __init__(
        self,
        queue: AsyncQueue,
        cards: CardBook,
        letters: DeadLetters,
        payloads: AsyncPayloads,
        timing: Timing,
        tell: Callable[[Job], None] = lambda _: None,
    ) -> None:
        self._queue = queue
        self._cards = cards
        self._letters = letters
        self._payloads = payloads
        self._timing = timing
        self._tell = tell

    async def redrive(
        self,
        wanted: DeadLetterFilter,
        *,
        limit: int,
        after: Place | None = None,
        deadline_ms: int | None = None,
        dry_run: bool = False,
    ) -> RedrivePage:
        """The next `limit` letters that pass, oldest first, of those that were dead when the walk began: at the first
        page, or as `after` says. The new jobs have no deadline unless one is given, in
        milliseconds from now.

        A letter that cannot be redriven is reported and left parked; so is an id that names none. Raises
        StoreUnavailable or QueueFull when not even the first letter could be tried; later they end the page early.
        """
        absent = await self._letters.absent(wanted.ids) if after is None else ()
        outcomes = [_no_letter(each) for each in absent]
        page = await self._letters.page(wanted, limit=limit, after=after, oldest_first=True)
        releases = await self._cards.list()
        place = after
        for letter in page.letters:
            try:
                release = release_for(letter, releases)
                outcomes.append(
                    Redriven(letter.id) if dry_run else await self._redrive(letter, release.lane, deadline_ms)
                )
            except (StoreUnavailable, QueueFull):
                if place == after:
                    raise
                return RedrivePage(tuple(outcomes), place)
            except HeadraceError as error:
                outcomes.append(Redriven(letter.id, error=ErrorInfo(error.code, error.explain())))
            place = page.behind(letter)
        return RedrivePage(tuple(outcomes), page.after)

    async def _redrive(self, letter: Job, lane: str, deadline_ms: int | None) -> Redriven:
        """Raises BlobNotFound and BlobDamaged for a prompt that is lost."""
        whole = await self._letters.find(letter.id)
        if whole is None:  # somebody else was faster
            (absent,) = await self._letters.absent((letter.id,))
            return _no_letter(absent)
        job = fresh(await self._payloads.fetch_prompts(whole), lane, deadline_ms)
        reply = await self._queue.accept(job, body_hash=letter.id)
        match reply.outcome:
            case Outcome.OK:
                self._tell(job)
            case Outcome.EXISTS:
                pass  # an earlier redrive was killed before the letter had left its set
            case Outcome.FULL:
                raise QueueFull("The queue is full.", next_step="Try again later.", retry_after_s=RETRY_FULL_S)
            case _:
                raise HeadraceError(f"The queue answered {reply.outcome} to a redrive.")
        timing = self._timing
        await self._letters.retire(
            whole, reply.job_id, record_ms=timing.result_ttl_ms, journal_ms=timing.journal_ttl_ms
        )
        return Redriven(letter.id, reply.job_id)


def _no_letter(absent: Absent) -> Redriven:
    if absent.redriven_as:
        return Redriven(absent.job_id, absent.redriven_as)
    error = JobNotFound("It is no dead letter.", next_step="It was purged, or never dead: headrace jobs show <id>.")
    return Redriven(absent.job_id, error=ErrorInfo(error.code, error.explain()))
