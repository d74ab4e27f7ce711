"""What the life of each job shows in the metrics. Knows facts and the names of the table, not how facts arise.

Two clocks are never subtracted from each other. What happened before the claim is measured by the store's clock, whose
times are in the record; what comes after it by this worker's monotonic clock. A time from accept is the sum of both.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

from headrace.contract.job import Job, State
from headrace.telemetry.metrics import Recorder
from workers.inference.facts import Claimed, Delivered, Ended, Fact, Left, Retried

MOST_TENANTS = 50
"""Tenants with series of their own on one worker; later ones are counted together, so that a beat stays small."""

OTHERS = "other"


@dataclass(slots=True)
class Attempt:
    """Monotonic seconds and tokens of one attempt; `first_tokens` came with the first delivery."""

    claimed_at: float
    first_at: float = 0.0
    last_at: float = 0.0
    first_tokens: int = 0
    tokens: int = 0

    def deliver(self, tokens: int, now: float) -> None:
        if not self.tokens:
            self.first_at, self.first_tokens = now, tokens
        self.last_at = now
        self.tokens += tokens

    def token_s(self, choices: int) -> float | None:
        """Time per token of one choice, after the first delivery; None when everything came at once."""
        later = self.tokens - self.first_tokens
        return (self.last_at - self.first_at) * choices / later if later > 0 else None


class MetricsWatcher:
    """Facts of one attempt come in order, those of different jobs from different threads."""

    def __init__(self, metrics: Recorder, clock: Callable[[], float] = time.monotonic) -> None:
        self._metrics = metrics
        self._clock = clock
        self._attempts: dict[tuple[str, int], Attempt] = {}
        self._tenants: set[str] = set()

    def __call__(self, fact: Fact) -> None:
        match fact:
            case Claimed(job):
                self._claimed(job)
            case Delivered(job, tokens, first):
                self._delivered(job, tokens, first)
            case Retried(job, error):
                self._metrics.add("headrace_jobs_retried_total", labels=(*_lane(job), error.code))
                self._attempts.pop(_key(job), None)
            case Left(job, why):
                self._metrics.add("headrace_jobs_left_total", labels=(why,))
                self._attempts.pop(_key(job), None)
            case Ended(job, _, state):
                self._ended(job, state)
            case _:
                return

    def _claimed(self, job: Job) -> None:
        self._attempts[_key(job)] = Attempt(self._clock())
        if job.queued_at is not None and job.leased_at is not None:
            waited_s = max(0, job.leased_at - job.queued_at) / 1000
            self._metrics.observe("headrace_job_queue_seconds", waited_s, _lane(job))

    def _delivered(self, job: Job, tokens: int, first: bool) -> None:
        now = self._clock()
        tenant = self._tenant(job)
        self._metrics.add("headrace_job_tokens_out_total", tokens, tenant)
        if first:
            # Counted with the first token there ever was, so that a job of many attempts counts its prompt once.
            self._metrics.add("headrace_job_tokens_in_total", len(job.request.prompt_ids), tenant)
        attempt = self._attempts.get(_key(job))
        if attempt is None:
            return
        attempt.deliver(tokens, now)
        if first:
            self._observe_since_accept("headrace_job_first_token_seconds", job, attempt, now)

    def _ended(self, job: Job, state: State) -> None:
        self._metrics.add("headrace_jobs_ended_total", labels=(*_lane(job), state.value.lower()))
        attempt = self._attempts.pop(_key(job), None)
        if attempt is None:
            return
        token_s = attempt.token_s(job.request.n)
        if token_s is not None:
            self._metrics.observe("headrace_job_token_seconds", token_s, _lane(job))
        if state is State.SUCCEEDED:
            self._observe_since_accept("headrace_job_seconds", job, attempt, self._clock())

    def _observe_since_accept(self, name: str, job: Job, attempt: Attempt, now: float) -> None:
        if job.created_at is not None and job.leased_at is not None:
            before_s = max(0, job.leased_at - job.created_at) / 1000
            self._metrics.observe(name, before_s + now - attempt.claimed_at, _lane(job))

    def _tenant(self, job: Job) -> tuple[str, str, str]:
        if job.tenant not in self._tenants and len(self._tenants) < MOST_TENANTS:
            self._tenants.add(job.tenant)
        tenant = job.tenant if job.tenant in self._tenants else OTHERS
        return job.lane, tenant, job.job_class.value


def _key(job: Job) -> tuple[str, int]:
    return job.id, job.epoch


def _lane(job: Job) -> tuple[str, str]:
    return job.lane, job.job_class.value
