"""A job and a result as Redis keeps them. Knows the fields of the hash and their encoding; holds no connection.

Fields of a newer schema are ignored and missing ones take their defaults, so that two versions can share a store.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any

import orjson

from headrace.contract.errors import ErrorInfo
from headrace.contract.generation import Choice, FrozenRequest, Sampling, Usage, pack_ids, unpack_ids
from headrace.contract.job import Fallback, Job, JobClass, Kind, Past, State
from headrace.contract.logprobs import pack_logprobs, packed_size, unpack_logprobs

Value = bytes | str | int

_TEXTS = (
    "id",
    "tenant",
    "model",
    "lane",
    "revision",
    "lease_id",
    "owner",
    "digest",
    "fallback_of",
    "prompt_ref",
    "result_ref",
    "idem_key",
    "redrive_of",
    "redriven_as",
    "replay_of",
    "digest_wanted",
    "ledger_receipt",
    "traceparent",
)
_NUMBERS = (
    "schema",
    "epoch",
    "attempt",
    "retries",
    "deaths",
    "deaths_total",
    "death_offset",
    "seq",
    "kv_tokens",
    "place",
    "created_at",
    "queued_at",
    "leased_at",
    "first_token_at",
    "ended_at",
    "deadline_at",
)


def _dumps(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _known(cls: type, data: Mapping[str, Any]) -> dict[str, Any]:
    return {name: data[name] for name in cls.__dataclass_fields__ if name in data}  # type: ignore[attr-defined]


def request_json(request: FrozenRequest) -> str:
    """The frozen request without its prompt, whose ids have a field of their own in the hash."""
    # Not with asdict, which copies a prompt of thousands of ids one by one.
    fields = {name: getattr(request, name) for name in request.__dataclass_fields__ if name != "prompt_ids"}
    return orjson.dumps(fields).decode()


def request_from(text: bytes | str, prompt: bytes) -> FrozenRequest:
    fields = _known(FrozenRequest, orjson.loads(text))
    fields["sampling"] = Sampling(**_known(Sampling, fields["sampling"]))
    fields["stop"] = tuple(fields.get("stop", ()))
    return FrozenRequest(**{**fields, "prompt_ids": unpack_ids(prompt)})


def fallback_json(fallback: Fallback) -> str:
    """What the scripts put into the record's fields when they fall back; `request` as text that they do not read."""
    request = fallback.request
    return _dumps(
        {
            "model": fallback.model,
            "lane": fallback.lane,
            "revision": fallback.revision,
            "request": request_json(request),
            "prompt_tokens": len(request.prompt_ids),
            "max_tokens": request.max_tokens,
            "prompt_ref": fallback.prompt_ref,
        }
    )


def fallback_from(text: bytes, prompt: bytes) -> Fallback:
    fields = json.loads(text)
    request = request_from(fields["request"], prompt)
    return Fallback(**{**_known(Fallback, fields), "request": request})


def error_json(error: ErrorInfo) -> str:
    return _dumps(asdict(error))


def to_hash(job: Job) -> dict[str, Value]:
    """All fields that say something. `prompt_tokens`, `max_tokens`, `finished` and `needs` are there for the
    scripts alone."""
    fields: dict[str, Value] = {name: getattr(job, name) for name in _TEXTS if getattr(job, name)}
    fields |= {name: getattr(job, name) for name in _NUMBERS if getattr(job, name)}
    fields |= {
        "object": "job",
        "class": job.job_class.value,
        "kind": job.kind.value,
        "state": job.state.value,
        "request": request_json(job.request),
        "prompt_ids": b"" if job.prompt_ref else pack_ids(job.request.prompt_ids),
        "prompt_tokens": len(job.request.prompt_ids),
        "max_tokens": job.request.max_tokens,
        "next_offset": orjson.dumps(job.next_offset).decode(),
        "finished": orjson.dumps([""] * len(job.next_offset)).decode(),
    }
    if job.fallback:
        fields["fallback"] = fallback_json(job.fallback)
        fields["fallback_prompt"] = b"" if job.fallback.prompt_ref else pack_ids(job.fallback.request.prompt_ids)
    if job.needs > 1:
        fields["needs"] = job.needs
    if job.error:
        fields["error"] = error_json(job.error)
    if job.digests:
        fields["digests"] = _dumps(job.digests)
    if job.history:
        fields["history"] = _dumps([asdict(past) for past in job.history])
    if job.usage:
        fields["usage"] = _dumps(asdict(job.usage))
    if job.metadata:
        fields["metadata"] = _dumps(dict(job.metadata))
    return fields


def from_hash(fields: Mapping[bytes, bytes]) -> Job:
    """Inverse of `to_hash`. Raises KeyError when a field that every record has is missing."""
    job: dict[str, Any] = {name: fields[name.encode()].decode() for name in _TEXTS if name.encode() in fields}
    job |= {name: int(fields[name.encode()]) for name in _NUMBERS if name.encode() in fields}
    job |= {
        "job_class": JobClass(fields[b"class"].decode()),
        "kind": Kind(fields[b"kind"].decode()),
        "state": State(fields[b"state"].decode()),
        "request": request_from(fields[b"request"], fields[b"prompt_ids"]),
        "next_offset": tuple(orjson.loads(fields[b"next_offset"])),
    }
    if b"fallback" in fields:
        job["fallback"] = fallback_from(fields[b"fallback"], fields[b"fallback_prompt"])
    if b"error" in fields:
        job["error"] = ErrorInfo(**_known(ErrorInfo, json.loads(fields[b"error"])))
    if b"digests" in fields:
        job["digests"] = tuple(json.loads(fields[b"digests"]))
    if b"history" in fields:
        job["history"] = tuple(Past(**_known(Past, past)) for past in json.loads(fields[b"history"]))
    if b"usage" in fields:
        job["usage"] = Usage(**_known(Usage, json.loads(fields[b"usage"])))
    if b"metadata" in fields:
        job["metadata"] = json.loads(fields[b"metadata"])
    return Job(**job)


def pack_result(choices: Iterable[Choice]) -> bytes:
    """One line of JSON, `[[index, finish_reason, length], …]`, then the packed ids of the choices in that order, then,
    if any of them has some, the packed log probabilities of each."""
    choices = tuple(choices)
    parts = [_result_head(choices), *(pack_ids(choice.token_ids) for choice in choices)]
    if _explained(choices):
        parts += [pack_logprobs(choice.logprobs, choice.prompt_logprobs) for choice in choices]
    return b"".join(parts)


def result_size(choices: tuple[Choice, ...]) -> int:
    """How many bytes `pack_result` makes of them, without making them."""
    size = len(_result_head(choices)) + 4 * sum(len(choice.token_ids) for choice in choices)
    if _explained(choices):
        size += sum(packed_size(choice.logprobs, choice.prompt_logprobs) for choice in choices)
    return size


def _result_head(choices: tuple[Choice, ...]) -> bytes:
    return _dumps([[choice.index, choice.finish_reason, len(choice.token_ids)] for choice in choices]).encode() + b"\n"


def _explained(choices: tuple[Choice, ...]) -> bool:
    return any(choice.logprobs or choice.prompt_logprobs for choice in choices)


def unpack_result(data: bytes) -> tuple[Choice, ...]:
    """Inverse of `pack_result`; a result of an earlier version has no log probabilities."""
    head, _, packed = data.partition(b"\n")
    described = json.loads(head)
    at = 4 * sum(length for _, _, length in described)
    ids = unpack_ids(packed[:at])
    choices, start = [], 0
    for index, finish_reason, length in described:
        logprobs, prompt_logprobs, at = unpack_logprobs(packed, at)
        choices.append(Choice(index, ids[start : start + length], finish_reason, logprobs, prompt_logprobs))
        start += length
    return tuple(choices)
