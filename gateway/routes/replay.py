"""`POST /v1/jobs/<id>/replay`: the same request once more, as a new job. Knows HTTP; comparing is the client's."""

from typing import Any

import structlog
from fastapi import APIRouter, Request, Response

from gateway.api_document import json_body
from gateway.body import read_json
from gateway.errors import json_response
from gateway.lookup import find
from gateway.services import Services
from gateway.submitting import BODY_TIMEOUT_S, as_accepted, idempotency_key
from headrace.contract.job import JobClass
from headrace.openai.projection import job_object
from headrace.openai.schema import ReplayBody, parse
from headrace.submission.idempotency import body_hash
from headrace.submission.replay import Replayer
from headrace.telemetry import tracing

_log = structlog.get_logger(__name__)


def router(services: Services) -> APIRouter:
    routes = APIRouter(prefix="/v1/jobs", tags=["jobs"])
    replayer = Replayer(services.submitter, services.cards, services.payloads)

    @routes.post("/{job_id}/replay", status_code=202, openapi_extra=json_body(ReplayBody, required=False))
    async def replay(request: Request, job_id: str) -> Response:
        """Run an ended job's frozen request again, seed and all, as a new job that only a worker of the same numerics
        digest may take."""
        fields = await _fields(request, services)
        asked = parse(ReplayBody, fields)
        submitted = await replayer.replay(
            await find(services, job_id),
            any_digest=bool(asked.any_digest),
            job_class=JobClass(asked.job_class) if asked.job_class else None,
            deadline_ms=None if asked.deadline_seconds is None else max(1, round(asked.deadline_seconds * 1000)),
            idem_key=idempotency_key(request),
            body_hash=f"{request.url.path}:{body_hash(fields)}",
            traceparent=tracing.current(),
        )
        accepted = as_accepted(services, submitted)
        job = accepted.job
        _log.info("gateway.replayed", job=job_id, replayed_as=job.id)
        return json_response(job_object(job), 202, {"location": f"/v1/jobs/{job.id}", **accepted.headers})

    return routes


async def _fields(request: Request, services: Services) -> dict[str, Any]:
    """No body at all is an empty one."""
    headers = request.headers
    if headers.get("content-length", "0") == "0" and "transfer-encoding" not in headers:
        return {}
    return await read_json(request, services.settings.gateway.max_body_bytes, BODY_TIMEOUT_S)
