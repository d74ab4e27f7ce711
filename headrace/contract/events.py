"""The events of a job and their public JSON. Knows the fields of CONTRACT, not where events are kept or sent."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, ClassVar

from headrace.contract.errors import ErrorInfo, error_class
from headrace.contract.generation import PromptLogprobs, TokenLogprobs, Usage


@dataclass(frozen=True, slots=True)
class Accepted:
    type: ClassVar[str] = "accepted"
    seq: int
    job: str
    at: int


@dataclass(frozen=True, slots=True)
class Started:
    type: ClassVar[str] = "started"
    seq: int
    attempt: int
    worker: str
    revision: str
    digest: str


@dataclass(frozen=True, slots=True)
class Delta:
    """Tokens `offset` to `offset + len(token_ids)` of one choice. The last delta of a choice has a `finish_reason`.

    `text` is derived from the ids, so it is empty in the journal and filled in whoever shows the event. `logprobs` has
    one entry for each id where they were asked for; the prompt's come with the delta of offset 0.
    """

    type: ClassVar[str] = "delta"
    seq: int
    choice: int
    offset: int
    token_ids: tuple[int, ...]
    text: str = ""
    finish_reason: str | None = None
    logprobs: tuple[TokenLogprobs, ...] = ()
    prompt_logprobs: PromptLogprobs = ()


@dataclass(frozen=True, slots=True)
class Retrying:
    type: ClassVar[str] = "retrying"
    seq: int
    in_ms: int
    error: ErrorInfo


@dataclass(frozen=True, slots=True)
class Resumed:
    type: ClassVar[str] = "resumed"
    seq: int
    attempt: int
    worker: str
    offsets: tuple[int, ...]
    exact: bool = True


@dataclass(frozen=True, slots=True)
class Completed:
    type: ClassVar[str] = "completed"
    seq: int
    usage: Usage


@dataclass(frozen=True, slots=True)
class Failed:
    """Also the last event of a DEAD job, with code `poison` or `retries_exhausted`."""

    type: ClassVar[str] = "failed"
    seq: int
    error: ErrorInfo


@dataclass(frozen=True, slots=True)
class Cancelled:
    type: ClassVar[str] = "cancelled"
    seq: int


@dataclass(frozen=True, slots=True)
class Expired:
    type: ClassVar[str] = "expired"
    seq: int


Event = Accepted | Started | Delta | Retrying | Resumed | Completed | Failed | Cancelled | Expired
TerminalEvent = Completed | Failed | Cancelled | Expired
TERMINAL_TYPES = frozenset({"completed", "failed", "cancelled", "expired"})

_CLASSES: dict[str, type[Event]] = {
    cls.type: cls for cls in (Accepted, Started, Delta, Retrying, Resumed, Completed, Failed, Cancelled, Expired)
}

_FIELDS: dict[type[Event], tuple[str, ...]] = {
    cls: tuple(field.name for field in fields(cls)) for cls in _CLASSES.values()
}
_LOGPROBS = ("logprobs", "prompt_logprobs")
"""Left out of an event that has none."""


def to_json(event: Event) -> dict[str, Any]:
    """The public JSON object of an event, `seq` and `type` first."""
    if isinstance(event, Delta) and not event.logprobs and not event.prompt_logprobs:
        return _plain_delta(event)
    body = {name: getattr(event, name) for name in _FIELDS[type(event)]}
    if isinstance(event, (Retrying, Failed)):
        # Whether to retry is the queue's business; the public event says what happened.
        body["error"] = {"code": event.error.code, "message": event.error.message}
    if isinstance(event, Completed):
        body["usage"] = asdict(event.usage)
    for name in _LOGPROBS:
        if entries := body.pop(name, ()):
            body[name] = [entry and {"logprob": entry.logprob, "top": entry.top} for entry in entries]
    return {"seq": body.pop("seq"), "type": event.type, **body}


def from_json(data: Mapping[str, Any]) -> Event:
    """Inverse of `to_json`. Raises KeyError for an unknown type; fields of a newer version are dropped."""
    cls = _CLASSES[data["type"]]
    body = {name: data[name] for name in _FIELDS[cls] if name in data}
    if "error" in body:
        code = body["error"]["code"]
        body["error"] = ErrorInfo(code, body["error"]["message"], error_class(code).retryable)
    if "usage" in body:
        body["usage"] = Usage(**body["usage"])
    for name in ("token_ids", "offsets"):
        if name in body:
            body[name] = tuple(body[name])
    for name in _LOGPROBS:
        if name in body:
            body[name] = tuple(entry and _token_logprobs(entry) for entry in body[name])
    return cls(**body)


def _plain_delta(delta: Delta) -> dict[str, Any]:
    """What nearly every event is, without a look at what its class has."""
    return {
        "seq": delta.seq,
        "type": "delta",
        "choice": delta.choice,
        "offset": delta.offset,
        "token_ids": delta.token_ids,
        "text": delta.text,
        "finish_reason": delta.finish_reason,
    }


def _token_logprobs(entry: Mapping[str, Any]) -> TokenLogprobs:
    return TokenLogprobs(entry["logprob"], tuple(map(tuple, entry.get("top", ()))))
