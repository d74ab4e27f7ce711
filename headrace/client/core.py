"""What the client says and how it reads the answers, without any I/O: the sync and the async client share it."""

import json
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, TypeVar
from urllib.parse import quote

from headrace.client.retry import Failure
from headrace.client.sending import encoded, query_string
from headrace.contract.errors import HeadraceError, InvalidRequest, error_class
from headrace.contract.ids import is_job_id

DEFAULT_URL = "http://127.0.0.1:8080"
IDEMPOTENCY_KEY = "Idempotency-Key"
Chat = Sequence[Mapping[str, Any]]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Call:
    """One HTTP request; `path` starts behind the gateway's address. Its answer may take `wait_s` longer than others.
    `idempotent` marks a POST that may be said twice without an idempotency key. `expects` is a field that the object
    in every good answer has."""

    method: str
    path: str
    headers: Mapping[str, str] = field(default_factory=dict)
    json: Mapping[str, Any] | None = None
    wait_s: float = 0.0
    idempotent: bool = False
    expects: str = ""

    @property
    def content(self) -> bytes | None:
        """The body. Raises InvalidRequest for a field that JSON has no word for: half a surrogate pair, NaN."""
        return None if self.json is None else encoded(self.json)

    @property
    def repeatable(self) -> bool:
        """Whether saying it twice does no more than saying it once."""
        return self.idempotent or self.method != "POST" or IDEMPOTENCY_KEY in self.headers


@dataclass(frozen=True, slots=True)
class Reply:
    """One HTTP answer, read to its end. Header names are lower case."""

    status: int
    headers: Mapping[str, str]
    content: bytes


@dataclass(frozen=True, slots=True)
class Broken:
    """No answer: the connection was refused, or otherwise not made, or lost, or what came is `garbled`: no gateway says
    it. `nobody` as in `Failure`."""

    reason: str
    refused: bool = False
    nobody: bool = False
    garbled: bool = False


Outcome = Reply | Broken


def submit_call(
    *,
    model: str,
    messages: Chat | None = None,
    prompt: str | None = None,
    max_tokens: int | None = None,
    job_class: str | None = None,
    deadline_seconds: float | None = None,
    metadata: Mapping[str, str] | None = None,
    idempotency_key: str | None = None,
    wait: float | None = None,
    sampling: Mapping[str, Any] = MappingProxyType({}),
) -> Call:
    """`POST /v1/jobs`, always with an idempotency key, so that saying it again is safe. None fields are left out.

    With `wait` the gateway is asked to answer only when the job has ended, or that many seconds have passed.
    """
    if (messages is None) == (prompt is None):
        raise InvalidRequest("A job needs messages or a prompt, and not both.", param="messages")
    fields = {
        "model": model,
        "messages": None if messages is None else list(messages),
        "prompt": prompt,
        "max_tokens": max_tokens,
        "class": None if job_class is None else str(job_class),
        "deadline_seconds": deadline_seconds,
        "metadata": None if metadata is None else dict(metadata),
        **sampling,
    }
    headers = _keyed(idempotency_key)
    if wait is not None:
        headers["Prefer"] = f"wait={max(1, round(wait))}"
    return Call("POST", "/v1/jobs", headers, without_none(fields), wait or 0.0, expects="id")


def job_call(job_id: str) -> Call:
    return Call("GET", f"/v1/jobs/{checked_id(job_id)}", expects="id")


def cancel_call(job_id: str) -> Call:
    return Call("DELETE", f"/v1/jobs/{checked_id(job_id)}")


def replay_call(
    job_id: str,
    *,
    any_digest: bool = False,
    job_class: str | None = None,
    deadline_seconds: float | None = None,
    idempotency_key: str | None = None,
) -> Call:
    fields = {
        "any_digest": any_digest or None,
        "class": None if job_class is None else str(job_class),
        "deadline_seconds": deadline_seconds,
    }
    path = f"/v1/jobs/{checked_id(job_id)}/replay"
    return Call("POST", path, _keyed(idempotency_key), without_none(fields), expects="id")


def events_call(job_id: str, cursor: str) -> Call:
    headers = {"Accept": "text/event-stream"} | ({"Last-Event-ID": cursor} if cursor else {})
    return Call("GET", f"/v1/jobs/{checked_id(job_id)}/events", headers)


def jobs_call(query: Mapping[str, str]) -> Call:
    return Call("GET", f"/v1/jobs?{query_string(query)}", expects="data")


def models_call() -> Call:
    return Call("GET", "/v1/models", expects="data")


def model_call(model_id: str) -> Call:
    return Call("GET", f"/v1/models/{quote(model_id, safe='', errors='replace')}", expects="id")


def workers_call() -> Call:
    return Call("GET", "/health/fleet")


def checked_id(job_id: str) -> str:
    """The id, which needs no quoting in a path. Raises InvalidRequest for what cannot be one."""
    if not is_job_id(job_id):
        raise InvalidRequest(f"{job_id!r} is not a job's id (job_ and 26 letters and digits).", param="id")
    return job_id


def without_none(fields: Mapping[str, T | None]) -> dict[str, T]:
    """What was given: None says that a field was not."""
    return {name: value for name, value in fields.items() if value is not None}


def _keyed(idempotency_key: str | None) -> dict[str, str]:
    """The headers of a POST that may be said again: under the caller's key, or one of its own."""
    return {IDEMPOTENCY_KEY: idempotency_key or f"sdk-{secrets.token_hex(16)}"}


def judged(reply: Reply, call: Call, *, met: bool) -> Outcome:
    """A good answer that is not what every gateway says to this call is none: something else answers there, or in
    between. `met` as in `garbled`."""
    if reply.status >= 400:
        return reply
    value = _object_in(reply)
    if value is not None and (not call.expects or call.expects in value):
        return reply
    what = "is not a JSON object" if value is None else f"has no `{call.expects}`"
    return garbled(f"the answer (HTTP {reply.status}) {what}", met=met)


def garbled(reason: str, *, met: bool) -> Broken:
    """`met`: whether one of the gateways has answered before; else the address may be that of something else."""
    return Broken(reason, nobody=not met, garbled=True)


def _object_in(reply: Reply) -> dict[str, Any] | None:
    try:
        value = json.loads(reply.content)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def read_json(reply: Reply) -> dict[str, Any]:
    """The JSON object of a good answer. Raises HeadraceError when it is not one: something else answers there."""
    value = _object_in(reply)
    if value is None:
        raise HeadraceError(
            f"The answer (HTTP {reply.status}) is not a JSON object.",
            next_step="Check that the URL is that of a Headrace gateway.",
        )
    return value


def unknown(what: str, error: Exception) -> HeadraceError:
    """The error for JSON that is not what was asked for: something else answers there, or another version."""
    return HeadraceError(f"The gateway's answer is not {what} as this version knows it ({error!r}).")


def read_id(job: Mapping[str, Any]) -> str:
    """The id of a job that was just accepted. Raises HeadraceError where there is none."""
    try:
        return str(job["id"])
    except KeyError as error:
        raise unknown("a job", error) from error


def failure_of(outcome: Outcome, call: Call) -> Failure:
    """What the retry rules need to know of an answer of 400 or above, or of none.

    A call that must not be said twice is only repeated where it was surely not heard: nobody was there, or it was
    turned away by a 429. A 5xx may be the lost answer of a store.
    """
    if isinstance(outcome, Broken):
        return Failure(0, final=not (call.repeatable or outcome.refused), nobody=outcome.nobody)
    final = outcome.headers.get("x-should-retry") == "false" or not (call.repeatable or outcome.status == 429)
    return Failure(outcome.status, retry_after(outcome.headers), final)


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds the server asks to wait; None when it does not, or in a form (a date) that we never send."""
    try:
        return max(0.0, float(headers["retry-after"]))
    except (KeyError, ValueError):
        return None


def error_of(reply: Reply) -> HeadraceError:
    """The typed exception in an answer of 400 or above, whoever sent it."""
    try:
        error = json.loads(reply.content)["error"]
        code, message, param = str(error["code"]), str(error["message"]), error.get("param")
    except (ValueError, KeyError, TypeError, AttributeError):
        code, param = "", None
        message = f"HTTP {reply.status} without an error that a Headrace gateway would send."
    return error_class(code)(message, param=param, retry_after_s=retry_after(reply.headers))
