"""One claimed job while it runs here: its choices, what is due of them, and how the attempt is to end.

Owned by the emitter, which makes the calls: this knows what to say to queue and engine, and says nothing to either.
"""

from concurrent.futures import Future

from headrace.contract.events import Delta
from headrace.contract.generation import Choice, Usage
from headrace.contract.job import Job, JobClass, State
from headrace.queue.base import Append, Ending, FinishReply
from workers.inference.coalesce import Pending, due_at
from workers.inference.facts import Why
from workers.inference.holdings import must_run_alone
from workers.inference.inbox import NewStream, Take
from workers.inference.messages import AddRequest
from workers.inference.retry import RetryDecision
from workers.inference.transcript import Transcript

AT_ONCE = float("-inf")
MAX_REWINDS = 100
PRIORITIES = {job_class: priority for priority, job_class in enumerate(JobClass)}
"""In the engine, as in the claim: the most urgent class first."""


class RunningJob:
    """`begun` once the journal says so; `fate` is set by an error; `urgent` when a write must be said again;
    before `settle_at` its end is not to be handed in; `handing_in` while it is, beside the emitter; `gone` once it is
    known to be another's although its end is still on its way."""

    def __init__(self, take: Take, new_stream: NewStream, now: float) -> None:
        self.job: Job = take.job
        self.begun = False
        self.urgent = False
        self.rewinds = 0
        self.settle_at = AT_ONCE
        self.handing_in: Future[FinishReply] | None = None
        self.gone: Why | None = None
        self.listeners = 0
        self.fate: RetryDecision | None = None
        self.scheduled = False
        self.progress_at = now
        stop = take.job.request.stop
        self.choices = [
            Transcript(index, lambda: new_stream(stop), earlier.token_ids, earlier.logprobs, earlier.prompt_logprobs)
            for index, earlier in enumerate(take.choices)
        ]
        for choice, earlier in zip(self.choices, take.choices, strict=True):
            choice.finish_reason = earlier.finish_reason
            choice.closed = earlier.finish_reason is not None
            # One that wants no tokens, only what the model holds of its prompt, has to be run all the same.
            if not choice.closed and choice.ids and len(choice.ids) >= take.job.request.max_tokens:
                choice.finish_reason = "length"

    def request_id(self, choice: Transcript) -> str:
        """With the lease, so that what an aborted attempt still says is not taken for this one's: epochs are given out
        again by a store that lost its tail."""
        return f"{self.job.id}:{choice.choice}:{self.job.lease_id}"

    def open_requests(self) -> list[tuple[str, Transcript]]:
        """The choices that the engine has to go on with."""
        return [(self.request_id(choice), choice) for choice in self.choices if choice.finish_reason is None]

    def add_request(self, request_id: str, choice: Transcript) -> AddRequest:
        request = self.job.request
        return AddRequest(
            request_id=request_id,
            prompt_ids=request.prompt_ids,
            sampling=request.sampling,
            choice=choice.choice,
            max_tokens=request.max_tokens,
            token_ids=tuple(choice.ids),
            # Not behind tokens that an older worker journaled without them: it would not be known whose they are.
            logprobs=request.logprobs if len(choice.logprobs) == len(choice.ids) else None,
            prompt_logprobs=request.prompt_logprobs,
            priority=PRIORITIES[self.job.job_class],
            deadline_s=_seconds_left(self.job),
        )

    @property
    def finished(self) -> bool:
        """The journal has every choice to its end."""
        return all(choice.closed for choice in self.choices)

    @property
    def flushed(self) -> bool:
        return all(choice.delta() is None for choice in self.choices)

    def due_at(self) -> float | None:
        """When this job wants to write next; None when it has nothing to say."""
        if not self.begun and not self.finished:
            return AT_ONCE
        if (self.urgent or self.fate is not None) and not self.flushed:
            return AT_ONCE
        return min((due for choice in self.choices if (due := self._due_at(choice)) is not None), default=None)

    def _due_at(self, choice: Transcript) -> float | None:
        if choice.closed:
            return None
        ending = choice.finish_reason is not None
        sent = max(0, choice.sent - choice.resumed_at)
        return due_at(Pending(choice.pending, choice.since, sent, self.listeners, ending))

    def waits(self, now: float) -> bool:
        """Whether its end is on its way, or is not to be tried again yet."""
        return now < self.settle_at if self.handing_in is None else not self.handing_in.done()

    def append(self) -> Append:
        """Everything that the journal lacks; without deltas when the attempt has only begun."""
        deltas = (choice.delta() for choice in self.choices)
        return Append(self.job.lease, tuple(delta for delta in deltas if delta is not None))

    def appended(self, deltas: tuple[Delta, ...], listeners: int) -> None:
        self.begun, self.urgent, self.listeners = True, False, listeners
        for delta in deltas:
            self.choices[delta.choice].journaled(delta)

    def rewind(self, choice: int, have: int) -> None:
        """The journal lacks what it had, or has more than was acknowledged: say it again from there.

        ValueError if it cannot be so, or is so again and again.
        """
        self.rewinds += 1
        if self.rewinds > MAX_REWINDS:
            raise ValueError(f"the journal was behind {MAX_REWINDS} times")
        self.choices[choice].rewind(have)
        self.urgent = True

    def got_on(self, now: float) -> None:
        """The engine has said something of it, or had it in a step."""
        self.scheduled, self.progress_at = True, now

    def stalled(self, limit: float) -> bool:
        """It has not got on since `limit` although it had its first turn. Waiting for that is no fault, and an engine
        that does not step at all is the engine's."""
        return self.progress_at < limit and self.scheduled and self.fate is None and not self.all_said

    @property
    def all_said(self) -> bool:
        """The engine has no more to do for it."""
        return all(choice.finish_reason is not None for choice in self.choices)

    def may_kill(self) -> bool:
        """Whether it still has to run alone (rule 8)."""
        offset = sum(choice.sent for choice in self.choices)
        return not self.finished and must_run_alone(self.job.deaths, self.job.death_offset, offset)

    def ending(self) -> Ending:
        """How the job ends: with its choices, or with the error that it failed with.

        All choices have one prompt, which counts once: what none of them had to compute of it was cached.
        """
        completion_tokens = sum(choice.sent for choice in self.choices)
        cached_tokens = min((choice.cached_tokens for choice in self.choices), default=0)
        usage = Usage(len(self.job.request.prompt_ids), completion_tokens, cached_tokens)
        if self.fate is not None:
            return Ending(State.FAILED, usage, error=self.fate.error)
        return Ending(State.SUCCEEDED, usage, tuple(_choice(item) for item in self.choices))


def _seconds_left(job: Job) -> float | None:
    """From the claim to the deadline, by the server's clock alone."""
    if job.deadline_at is None or job.leased_at is None:
        return None
    return (job.deadline_at - job.leased_at) / 1000


def _choice(item: Transcript) -> Choice:
    """As the result keeps it, with what earlier attempts journaled."""
    return Choice(
        item.choice, tuple(item.ids), item.finish_reason or "", tuple(item.logprobs), tuple(item.prompt_logprobs)
    )
