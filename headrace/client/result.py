"""Jobs and models as the gateway shows them, read into values. Knows its JSON, not how it was fetched."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from headrace.client import core
from headrace.contract.errors import DeadlineExceeded, ErrorInfo, HeadraceError, JobCancelled
from headrace.contract.events import Cancelled, Delta, Event, Expired, Failed
from headrace.contract.generation import Usage
from headrace.contract.job import TERMINAL, State


@dataclass(frozen=True, slots=True)
class JobView:
    """What was true of a job when it was asked for. `raw` is the whole JSON object, times included."""

    id: str
    model: str
    state: State
    usage: Usage | None
    error: ErrorInfo | None
    texts: tuple[str, ...]
    finish_reasons: tuple[str, ...]
    raw: Mapping[str, Any]

    @property
    def ended(self) -> bool:
        return self.state in TERMINAL


@dataclass(frozen=True, slots=True)
class ModelView:
    """A model as the gateway offers it. Prompt and answer together may have `max_tokens_in_all` tokens."""

    id: str
    context_length: int
    max_tokens_in_all: int
    capabilities: tuple[str, ...]
    raw: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class JobResult:
    """A job that succeeded. `texts` has one entry for each choice; `text` is the first."""

    id: str
    model: str
    texts: tuple[str, ...]
    finish_reasons: tuple[str, ...]
    usage: Usage

    @property
    def text(self) -> str:
        return self.texts[0]

    @property
    def finish_reason(self) -> str:
        return self.finish_reasons[0]


def read_view(data: Mapping[str, Any]) -> JobView:
    """Raises HeadraceError when the object is not a job as this version knows it."""
    try:
        choices = (data.get("result") or {}).get("choices", [])
        usage, error = data.get("usage"), data.get("error")
        return JobView(
            id=data["id"],
            model=data["model"],
            state=State(data["state"].upper()),
            usage=_read_usage(usage) if usage else None,
            error=ErrorInfo(error["code"], error["message"]) if error else None,
            texts=tuple(_text(choice) for choice in choices),
            finish_reasons=tuple(choice["finish_reason"] for choice in choices),
            raw=data,
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error_:
        raise core.unknown("a job", error_) from error_


def read_model(data: Mapping[str, Any]) -> ModelView:
    """Raises HeadraceError when the object is not a model as this version knows it."""
    try:
        return ModelView(
            data["id"], data["context_length"], data["max_tokens_in_all"], tuple(data["capabilities"]), data
        )
    except (KeyError, TypeError) as error:
        raise core.unknown("a model", error) from error


def read_model_ids(data: Mapping[str, Any]) -> list[str]:
    """From `GET /v1/models`. Raises HeadraceError when the object is not a list of models."""
    try:
        return [str(model["id"]) for model in data["data"]]
    except (KeyError, TypeError) as error:
        raise core.unknown("a list of models", error) from error


def read_workers(data: Mapping[str, Any]) -> list[dict[str, Any]]:
    """From `GET /health/fleet`."""
    return list(data.get("workers", ()))


def outcome(view: JobView) -> JobResult:
    """The result of an ended job. Raises the typed exception of one that did not succeed."""
    if view.state is State.SUCCEEDED:
        if not view.texts:
            raise HeadraceError(f"The result of {view.id} is past its retention.", next_step="Submit the job again.")
        return JobResult(view.id, view.model, view.texts, view.finish_reasons, view.usage or Usage(0))
    if view.error is not None:
        raise view.error.exception()
    if view.state is State.CANCELLED:
        raise JobCancelled(f"{view.id} was cancelled.")
    if view.state is State.EXPIRED:
        raise DeadlineExceeded(f"{view.id} passed its deadline.")
    raise HeadraceError(f"{view.id} ended as {view.state.value.lower()} and no error was kept.")


def failure(event: Event, job_id: str) -> HeadraceError | None:
    """The typed exception of a last event that is not `completed`."""
    match event:
        case Failed():
            return event.error.exception()
        case Cancelled():
            return JobCancelled(f"{job_id} was cancelled.")
        case Expired():
            return DeadlineExceeded(f"{job_id} passed its deadline.")
        case _:
            return None


def first_text(event: Event, job_id: str) -> str:
    """What an event adds to the text of the first choice. Raises the typed exception of an end without success."""
    if error := failure(event, job_id):
        raise error
    return event.text if isinstance(event, Delta) and event.choice == 0 else ""


def _text(choice: Mapping[str, Any]) -> str:
    """Chat choices carry a message, completion choices a text."""
    return str(choice["message"]["content"] if "message" in choice else choice["text"])


def _read_usage(usage: Mapping[str, Any]) -> Usage:
    return Usage(usage["prompt_tokens"], usage["completion_tokens"], usage.get("cached_tokens", 0))
