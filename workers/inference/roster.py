"""The jobs that run here, and which request of the engine is whose. Knows no store and no clock.

Owned by the emitter's thread; only `busy` is for any thread.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import structlog

from headrace.contract.errors import EngineFailure, ErrorInfo
from headrace.contract.job import Lease
from workers.inference import retry
from workers.inference.facts import Left, Watcher, Why
from workers.inference.inbox import NewStream, Take
from workers.inference.messages import AbortRequests, Command, Output
from workers.inference.running import RunningJob
from workers.inference.settling import named
from workers.inference.transcript import Transcript

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Roster:
    """`send` speaks to the engine; `forgotten` is told the lease of every job that leaves; `dice` spread the retries of
    one failure."""

    send: Callable[[Command], None]
    forgotten: Callable[[Lease], object]
    tell: Watcher
    dice: Callable[[], float]
    _jobs: dict[str, RunningJob] = field(default_factory=dict, init=False)
    _requests: dict[str, tuple[RunningJob, Transcript]] = field(default_factory=dict, init=False)

    @property
    def busy(self) -> bool:
        """Whether the engine has something to do."""
        return bool(self._requests)

    def jobs(self) -> list[RunningJob]:
        return list(self._jobs.values())

    def find(self, lease: Lease) -> RunningJob | None:
        """The job that runs under this very lease."""
        job = self._jobs.get(lease.job_id)
        return job if job is not None and job.job.lease == lease else None

    def take(self, take: Take, new_stream: NewStream, now: float) -> None:
        """Begin a job, or go on with it. Raises HeadraceError for one that cannot be begun, and then has not."""
        job = RunningJob(take, new_stream, now)
        if (earlier := self._jobs.get(take.job.id)) is not None:
            self.forget(earlier, Why.LEASE_LOST)  # claimed again before it was told so
        self._jobs[take.job.id] = job
        for request_id, choice in job.open_requests():
            self._requests[request_id] = (job, choice)
            self.send(job.add_request(request_id, choice))

    # -- what the engine says

    def hear(self, output: Output, now: float) -> None:
        """What it says of a request that is nobody's any more falls away."""
        found = self._requests.get(output.request_id)
        if found is None:
            return
        job, choice = found
        job.got_on(now)
        if output.error is not None:
            self.fail(job, output.error)
            return
        try:
            cut = choice.push(
                output.offset,
                output.token_ids,
                output.finish_reason,
                now,
                output.logprobs,
                output.prompt_logprobs,
                output.cached_tokens,
            )
        except ValueError as error:
            self.fail(job, EngineFailure(f"The engine lost count: {error}.").info())
            return
        if choice.finish_reason is not None:
            del self._requests[output.request_id]
        if cut and output.finish_reason is None:
            self.send(AbortRequests((output.request_id,)))

    def scheduled(self, request_ids: tuple[str, ...], now: float) -> None:
        """These had a part in a step, whether it brought tokens or not."""
        for request_id in request_ids:
            if request_id in self._requests:
                job, _ = self._requests[request_id]
                job.got_on(now)

    def engine_gone(self) -> None:
        """Nobody works on any request now."""
        self._requests.clear()

    # -- what becomes of a job

    def fail(self, job: RunningJob, error: ErrorInfo) -> None:
        """Its tokens so far are journaled before its fate is told."""
        if job.fate is None:
            job.fate = retry.decide(error, job.job.retries, self.dice())
            log.warning("request failed", code=error.code, reason=error.message, **named(job.job))
        self._abort(job)

    def rewind(self, job: RunningJob, choice: int, have: int) -> None:
        """Say it again from where the journal is; fail a job of which that cannot be so."""
        try:
            job.rewind(choice, have)
        except ValueError as error:
            self.fail(job, EngineFailure(f"The journal cannot be continued: {error}.").info())

    def drop(self, job: RunningJob, why: Why) -> None:
        """It is another's, unless its end is on its way: then the answer to that says what became of it."""
        if job.handing_in is None:
            self.forget(job, why)
        else:
            job.gone = why

    def drop_all(self, why: Why) -> None:
        for job in self.jobs():
            self.drop(job, why)

    def forget(self, job: RunningJob, why: Why | None = None) -> None:
        """`why` is told to watchers; without it they have heard of the end already."""
        self._abort(job)
        del self._jobs[job.job.id]
        self.forgotten(job.job.lease)
        if why is not None:
            self.tell(Left(job.job, why))
            log.debug("job left", why=why, **named(job.job))

    def _abort(self, job: RunningJob) -> None:
        open_ids = tuple(request_id for request_id, (owner, _) in self._requests.items() if owner is job)
        for request_id in open_ids:
            del self._requests[request_id]
        if open_ids:
            self.send(AbortRequests(open_ids))
