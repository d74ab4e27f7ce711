"""Turns every error into OpenAI's error shape. Knows statuses and headers, not where errors come from."""

import math
from collections.abc import Mapping
from typing import Any

import orjson
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from headrace.contract.errors import (
    DeadlineExceeded,
    HeadraceError,
    InvalidRequest,
    JobCancelled,
    StoreUnavailable,
)
from headrace.contract.events import Cancelled, Expired, Failed
from headrace.openai.projection import error_body

_RETRY_AFTER_S = {429: 1.0, 503: 1.0}


REFUSED = "headrace.refused"
"""Where a request's scope says with which code it was refused, for the metrics."""


class ClientGone(Exception):
    """The client closed its connection."""


class UnknownUrl(InvalidRequest):
    status = 404


class MethodNotAllowed(InvalidRequest):
    status = 405


class BodyTimeout(InvalidRequest):
    status = 408
    retryable = True


def stopping() -> HeadraceError:
    """What an open request is told when this gateway is asked to stop."""
    return StoreUnavailable("This gateway is stopping.", next_step="Ask again: another one answers.")


def error_of(event: Failed | Cancelled | Expired) -> HeadraceError:
    """The error a client gets for a job that ended without an answer."""
    match event:
        case Failed(error=info):
            return info.exception()
        case Cancelled():
            return JobCancelled("The job was cancelled.")
        case Expired():
            return DeadlineExceeded("The job's deadline passed before it was done.")


def error_headers(error: HeadraceError) -> dict[str, str]:
    """When to come back, or that it is no use."""
    if isinstance(error, BodyTimeout):
        return {"connection": "close"}  # the rest of that body would be taken for the next request
    if not error.retryable:
        return {"x-should-retry": "false"}
    wait = error.retry_after_s if error.retry_after_s is not None else _RETRY_AFTER_S.get(error.status)
    return {} if wait is None else {"retry-after": str(max(1, math.ceil(wait)))}


def json_response(body: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    return Response(orjson.dumps(body), status, dict(headers or {}), "application/json")


def error_response(error: HeadraceError, headers: Mapping[str, str] | None = None) -> Response:
    return json_response(error_body(error), error.status, {**error_headers(error), **(headers or {})})


def add_error_handlers(app: FastAPI) -> None:
    """Route every exception that FastAPI or Starlette would answer in their own shape through ours."""

    @app.exception_handler(HeadraceError)
    async def _ours(request: Request, error: HeadraceError) -> Response:
        request.scope[REFUSED] = error.code
        return error_response(error)

    @app.exception_handler(ClientGone)
    async def _gone(_: Request, __: ClientGone) -> Response:
        # Nobody reads this; the status is for our own log line and metrics.
        return Response(status_code=JobCancelled.status)

    @app.exception_handler(HTTPException)
    async def _http(request: Request, error: HTTPException) -> Response:
        where = f"{request.method} {request.url.path}"
        match error.status_code:
            case 404:
                return error_response(UnknownUrl(f"There is no {where}.", next_step="See /docs for the routes."))
            case 405:
                allowed = (error.headers or {}).get("Allow", "")
                problem = MethodNotAllowed(f"{where} is not supported.", next_step=f"Allowed: {allowed}.")
                return error_response(problem, {"allow": allowed})
            case _:
                return error_response(InvalidRequest(str(error.detail)))

    @app.exception_handler(RequestValidationError)
    async def _parameters(_: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        return error_response(InvalidRequest(str(first["msg"]), param=str(first["loc"][-1])))
