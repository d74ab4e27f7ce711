"""From a request's body and headers to a durable job. Knows HTTP's side of the one road in, not what submit decides."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import structlog
from fastapi import Request

from gateway.body import read_json
from gateway.services import Services
from headrace.contract.job import Job
from headrace.openai.schema import Generation, parse
from headrace.submission.idempotency import HEADER, body_hash
from headrace.submission.intent import Intent
from headrace.submission.submit import Submitted
from headrace.telemetry import tracing

BODY_TIMEOUT_S = 30.0
JOB_HEADER = "x-headrace-job"

B = TypeVar("B", bound=Generation)


@dataclass(frozen=True, slots=True)
class Accepted:
    """A job that is durable. `replayed`: the idempotency key was known, and this is the earlier job."""

    job: Job
    replayed: bool

    @property
    def headers(self) -> dict[str, str]:
        return {JOB_HEADER: self.job.id} | ({"idempotent-replayed": "true"} if self.replayed else {})


async def read_body(request: Request, services: Services, model: type[B]) -> tuple[B, str]:
    """The validated body, and the hash by which an idempotency key knows it again.

    The route counts too: the same body means another thing on another route.
    """
    fields = await read_json(request, services.settings.gateway.max_body_bytes, BODY_TIMEOUT_S)
    return parse(model, fields), f"{request.url.path}:{body_hash(fields)}"


async def submit(request: Request, services: Services, intent: Intent, seen_as: str) -> Accepted:
    """Raises what submit refuses with; IdempotencyConflict when the key came with another body before."""
    (accepted,) = await submit_all(request, services, [intent], seen_as)
    return accepted


async def submit_all(
    request: Request, services: Services, intents: Sequence[Intent], seen_as: str
) -> tuple[Accepted, ...]:
    """The jobs of one request, in order: all of them or an error."""
    first, *others = await services.submitter.submit_all(
        intents, idem_key=idempotency_key(request), body_hash=seen_as, traceparent=tracing.current()
    )
    structlog.contextvars.bind_contextvars(job=first.job_id, **({"jobs": len(intents)} if others else {}))
    return (as_accepted(services, first), *(as_accepted(services, each) for each in others))


def as_accepted(services: Services, submitted: Submitted) -> Accepted:
    """Counted if it is new."""
    if not submitted.replayed:
        job = submitted.job
        services.metrics.jobs.labels(job.kind.value, job.lane, job.job_class.value).inc()
    return Accepted(submitted.job, submitted.replayed)


def idempotency_key(request: Request) -> str:
    """The `Idempotency-Key` as it came; empty for none. Submit checks its form."""
    return request.headers.get(HEADER, "")
