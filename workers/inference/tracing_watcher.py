"""What the life of each job shows in its trace: its time in the queue, and each attempt. Knows facts, no exporter.

All times are the store's: those in the record, and after the claim its `leased_at` plus what this worker's monotonic
clock has counted since. So spans of hosts whose clocks differ stand in order. No prompt and no text is in a span.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

from headrace.contract.generation import Usage
from headrace.contract.job import Job, Kind, State
from headrace.telemetry.tracing import Attributes, Span, Tracing
from workers.inference.facts import Began, Claimed, Delivered, Ended, Fact, Left, Retried

OPERATIONS = {Kind.CHAT: "chat", Kind.COMPLETION: "text_completion", Kind.EMBEDDING: "embeddings"}
"""`gen_ai.operation.name` as OpenTelemetry's conventions for generative AI have it."""


@dataclass(slots=True)
class Attempt:
    """An attempt that runs here; `claimed_at` is monotonic, `zero_ms` what the store's clock said then."""

    span: Span
    claimed_at: float
    zero_ms: float
    tokens: int = 0


class TracingWatcher:
    """Facts of one attempt come in order, those of different jobs from different threads."""

    def __init__(self, tracing: Tracing, clock: Callable[[], float] = time.monotonic) -> None:
        self._tracing = tracing
        self._clock = clock
        self._attempts: dict[tuple[str, int], Attempt] = {}

    def __call__(self, fact: Fact) -> None:
        if isinstance(fact, Claimed):
            self._claimed(fact.job)
            return
        attempt = self._attempts.get((fact.job.id, fact.job.epoch))
        if attempt is None:
            return
        match fact:
            case Began(job):
                self._event(attempt, "started" if job.attempt == 1 else "resumed", {"offset": sum(job.next_offset)})
            case Delivered(_, tokens, first):
                attempt.tokens += tokens
                if first:
                    self._event(attempt, "first_token")
            case Retried(job, error, in_ms):
                self._event(attempt, "retried", {"error.type": error.code, "headrace.retry.in_ms": in_ms})
                attempt.span.fail(error.code)
                self._end(job, attempt)
            case Left(job, why):
                self._event(attempt, "left", {"why": why})
                self._end(job, attempt)
            case Ended(job, ending, state):
                attempt.span.set(_outcome(state, ending.usage, [choice.finish_reason for choice in ending.choices]))
                if ending.error is not None:
                    attempt.span.set({"error.type": ending.error.code})
                    attempt.span.fail(ending.error.code)
                self._end(job, attempt)

    def _claimed(self, job: Job) -> None:
        attributes = _of(job)
        if job.queued_at is not None and job.leased_at is not None:
            queued = self._tracing.start(
                "job.queue", parent=job.traceparent, at_ms=job.queued_at, attributes=attributes
            )
            queued.end(at_ms=job.leased_at)
        zero_ms = time.time() * 1000 if job.leased_at is None else float(job.leased_at)
        span = self._tracing.start(
            "job.run", parent=job.traceparent, kind="consumer", at_ms=zero_ms, attributes=attributes
        )
        self._attempts[job.id, job.epoch] = Attempt(span, self._clock(), zero_ms)

    def _event(self, attempt: Attempt, name: str, attributes: Attributes | None = None) -> None:
        attempt.span.event(name, attributes, at_ms=self._now_ms(attempt))

    def _end(self, job: Job, attempt: Attempt) -> None:
        del self._attempts[job.id, job.epoch]
        attempt.span.set({"headrace.attempt.output_tokens": attempt.tokens})
        attempt.span.end(at_ms=self._now_ms(attempt))

    def _now_ms(self, attempt: Attempt) -> float:
        return attempt.zero_ms + (self._clock() - attempt.claimed_at) * 1000


def _of(job: Job) -> Attributes:
    return {
        "gen_ai.operation.name": OPERATIONS[job.kind],
        "gen_ai.request.model": job.model,
        "gen_ai.request.max_tokens": job.request.max_tokens,
        "gen_ai.request.choice.count": job.request.n,
        "gen_ai.request.temperature": job.request.sampling.temperature,
        "gen_ai.request.top_p": job.request.sampling.top_p,
        "gen_ai.usage.input_tokens": len(job.request.prompt_ids),
        "headrace.job.id": job.id,
        "headrace.lane": job.lane,
        "headrace.class": job.job_class.value,
        "headrace.tenant": job.tenant,
        "headrace.attempt": job.attempt,
        "headrace.worker": job.owner,
    }


def _outcome(state: State, usage: Usage, finish_reasons: list[str]) -> Attributes:
    """Tokens are those of the whole job; what this attempt made stands beside them."""
    return {
        "headrace.state": state.value.lower(),
        "gen_ai.usage.output_tokens": usage.completion_tokens,
        "gen_ai.response.finish_reasons": finish_reasons,
    }
