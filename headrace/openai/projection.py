"""Replies in OpenAI's shapes, and the job object. Knows fields and names; is handed the text and looks nothing up."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from headrace.contract.errors import DeadlineExceeded, ErrorInfo, HeadraceError, error_class, error_type
from headrace.contract.generation import Usage
from headrace.contract.job import Job, Kind, State
from headrace.contract.model_card import ModelCard

OWNER = "headrace"
_PREFIX = {Kind.CHAT: "chatcmpl", Kind.COMPLETION: "cmpl"}


@dataclass(frozen=True, slots=True)
class Answer:
    """One choice. `finish_reason` is `stop` or `length`; `logprobs` is in the shape of the answer's kind. OpenAI's
    replies have no `token_ids`; the results of jobs show them."""

    index: int
    text: str
    finish_reason: str
    logprobs: dict[str, Any] | None = None
    token_ids: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Reply:
    """What all frames of one reply say of it. `created_at` is in milliseconds, OpenAI's `created` in seconds."""

    kind: Kind
    job_id: str
    model: str
    created_at: int
    include_usage: bool = False

    def whole(self, answers: Sequence[Answer], usage: Usage) -> dict[str, Any]:
        """`chat.completion` or `text_completion`."""
        chat = self.kind is Kind.CHAT
        return {
            **self._head("chat.completion" if chat else "text_completion"),
            "choices": choices(self.kind, answers),
            "usage": usage_object(usage),
        }

    def opening(self, choice: int = 0) -> dict[str, Any]:
        """The first chunk of a chat, which gives the role. Completions have none."""
        return self._chunk(choice, {"role": "assistant", "content": ""}, "", None)

    def text(self, text: str, choice: int = 0, logprobs: dict[str, Any] | None = None) -> dict[str, Any]:
        return self._chunk(choice, {"content": text}, text, None, logprobs)

    def closing(self, finish_reason: str, choice: int = 0) -> dict[str, Any]:
        """The last chunk of a choice."""
        return self._chunk(choice, {}, "", finish_reason)

    def usage(self, usage: Usage) -> dict[str, Any]:
        """The chunk after all choices, sent when `include_usage` was asked for."""
        return {**self._head(self._chunk_object), "choices": [], "usage": usage_object(usage)}

    def _chunk(
        self,
        choice: int,
        delta: dict[str, str],
        text: str,
        finish_reason: str | None,
        logprobs: dict[str, Any] | None = None,
    ) -> dict[str, Any]:
        said = {"delta": delta} if self.kind is Kind.CHAT else {"text": text}
        chunk = {
            **self._head(self._chunk_object),
            "choices": [{"index": choice, **said, "logprobs": logprobs, "finish_reason": finish_reason}],
        }
        return {**chunk, "usage": None} if self.include_usage else chunk

    @property
    def _chunk_object(self) -> str:
        return "chat.completion.chunk" if self.kind is Kind.CHAT else "text_completion"

    def _head(self, object_name: str) -> dict[str, Any]:
        return {
            "id": f"{_PREFIX[self.kind]}-{self.job_id.removeprefix('job_')}",
            "object": object_name,
            "created": self.created_at // 1000,
            "model": self.model,
        }


def choices(kind: Kind, answers: Sequence[Answer]) -> list[dict[str, Any]]:
    """The choices of a whole reply, and of a job's result."""
    return [
        {
            "index": answer.index,
            **(
                {"message": {"role": "assistant", "content": answer.text}}
                if kind is Kind.CHAT
                else {"text": answer.text}
            ),
            "logprobs": answer.logprobs,
            "finish_reason": answer.finish_reason,
        }
        for answer in answers
    ]


def usage_object(usage: Usage) -> dict[str, Any]:
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
    }


def job_object(job: Job, answers: Sequence[Answer] | None = None) -> dict[str, Any]:
    """`GET /v1/jobs/<id>`. Times are milliseconds; `result` is null until there are answers, and after they expired."""
    return {
        "id": job.id,
        "object": "job",
        "model": job.model,
        "class": job.job_class.value,
        "kind": job.kind.value,
        "state": job.state.value.lower(),
        "created_at": job.created_at,
        "queued_at": job.queued_at,
        "leased_at": job.leased_at,
        "first_token_at": job.first_token_at,
        "ended_at": job.ended_at,
        "deadline_at": job.deadline_at,
        "attempt": job.attempt,
        "digests": list(job.digests),
        "digest_wanted": job.digest_wanted or None,
        "usage": None if job.usage is None else usage_object(job.usage),
        "error": _job_error(job),
        "metadata": dict(job.metadata),
        "fallback_of": job.fallback_of or None,
        "redrive_of": job.redrive_of or None,
        "redriven_as": job.redriven_as or None,
        "replay_of": job.replay_of or None,
        "result": None if answers is None else {"choices": _with_ids(choices(job.kind, answers), answers)},
    }


def _with_ids(shown: Sequence[dict[str, Any]], answers: Sequence[Answer]) -> list[dict[str, Any]]:
    return [{**choice, "token_ids": answer.token_ids} for choice, answer in zip(shown, answers, strict=True)]


def _job_error(job: Job) -> dict[str, Any] | None:
    """A deadline that passed is written down as a state alone; a client looks for the reason here."""
    if job.error is None and job.state is State.EXPIRED:
        return error_object(DeadlineExceeded("The job's deadline passed before it was done."))
    return None if job.error is None else error_object(job.error)


def job_list(jobs: Sequence[Job], first_id: str | None, last_id: str | None, has_more: bool) -> dict[str, Any]:
    """`GET /v1/jobs`, without the results, which each job shows itself."""
    data = [job_object(job) for job in jobs]
    for each in data:
        del each["result"]
    return {"object": "list", "data": data, "first_id": first_id, "last_id": last_id, "has_more": has_more}


def model_object(card: ModelCard) -> dict[str, Any]:
    """One model of `GET /v1/models`, with what a caller needs to size a prompt and what its file says of itself."""
    return {
        "id": card.id,
        "object": "model",
        "created": card.created_at // 1000,
        "owned_by": OWNER,
        "context_length": card.context_length,
        "max_tokens_in_all": card.max_tokens_in_all,
        "aliases": list(card.aliases),
        "capabilities": list(card.capabilities),
        "tokens_per_second": card.tokens_per_second,
        "name": card.name or None,
        "architecture": card.architecture or None,
        "parameters": card.parameters,
        "quantization": card.quantization or None,
        "licence": card.licence or None,
    }


def model_list(cards: Sequence[ModelCard]) -> dict[str, Any]:
    """`GET /v1/models`: each model once, whatever the number of its releases."""
    by_id = {card.id: card for card in sorted(cards, key=lambda card: card.created_at)}
    return {"object": "list", "data": [model_object(by_id[name]) for name in sorted(by_id)]}


def error_object(error: HeadraceError | ErrorInfo) -> dict[str, Any]:
    """The inside of an error body. `param` is null for an error that came out of a record."""
    if isinstance(error, HeadraceError):
        message, param, status = error.explain(), error.param, error.status
    else:
        message, param, status = error.message, None, error_class(error.code).status
    return {"message": message, "type": error_type(status), "param": param, "code": error.code}


def error_body(error: HeadraceError | ErrorInfo) -> dict[str, Any]:
    """OpenAI's error body, also of a stream's error frame."""
    return {"error": error_object(error)}
