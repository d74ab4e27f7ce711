"""What a client asked for, out of a message: every field checked, none taken that only the queue may set.

Others may write to a broker too. A number that no script can count with, or a list where a text belongs, would be found
by whoever reads the record next: a worker, a listing, the claim of another job. Knows no broker and no store.
"""

import base64
import json
import re
from collections.abc import Mapping
from typing import Any

from headrace.contract.generation import FrozenRequest, Sampling, unpack_ids
from headrace.contract.ids import is_job_id
from headrace.contract.job import Fallback, Job, JobClass, Kind

MAX_INT32 = 2**31 - 1
MAX_INT64 = 2**63 - 1
LAST_MS = 10**14
"""The latest deadline, in the year 5138: Lua writes it, and what is added to it, without an exponent."""
MOST_CHOICES = 128
MOST_ALTERNATIVES = 20
_FARTHEST = 1e6
"""No sampling parameter is meant to go so far; what is too much for an engine, it says itself."""

_TEXT = re.compile("[^\x00-\x1f\x7f\ud800-\udfff]{0,1024}")
_LONE_SURROGATE = re.compile("[\ud800-\udfff]")
_NUMBERS = tuple(name for name in Sampling.__dataclass_fields__ if name not in ("seed", "top_k"))


def job_from(record: Any, packed: Any) -> Job:
    """A job that nothing has happened to yet: where it stands, its counts and its times are the queue's to say.

    Raises ValueError with the reason, and KeyError with the name of what is missing.
    """
    record, packed = _object(record, "record"), _object(packed, "packed")
    request = _request(record["request"], packed.get("prompt_ids", ""), "request")
    return Job(
        id=text(record["id"], "id"),
        model=_name(record, "model"),
        lane=_name(record, "lane"),
        revision=_name(record, "revision"),
        job_class=JobClass(text(record["class"], "class")),
        kind=Kind(text(record["kind"], "kind")),
        request=request,
        tenant=_name(record, "tenant"),
        next_offset=(0,) * request.n,
        fallback=_fallback(record, packed),
        fallback_of=text(record.get("fallback_of", ""), "fallback_of"),
        idem_key=text(record.get("idem_key", ""), "idem_key"),
        redrive_of=_link(record, "redrive_of"),
        replay_of=_link(record, "replay_of"),
        digest_wanted=text(record.get("digest_wanted", ""), "digest_wanted"),
        ledger_receipt=text(record.get("ledger_receipt", ""), "ledger_receipt"),
        traceparent=text(record.get("traceparent", ""), "traceparent"),
        metadata=_metadata(record.get("metadata", "{}")),
    )


def text(value: Any, name: str) -> str:
    """One short line, which may be empty."""
    if not isinstance(value, str) or not _TEXT.fullmatch(value):
        raise ValueError(f"its {name} is not one line of text")
    return value


def whole(value: Any, name: str, least: int, most: int) -> int:
    """An integer within these bounds, both included."""
    if type(value) is not int or not least <= value <= most:
        raise ValueError(f"its {name} is not an integer from {least} to {most}")
    return value


def _object(value: Any, name: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"its {name} is not an object")
    return value


def _name(fields: Mapping[str, Any], name: str) -> str:
    found = text(fields[name], name)
    if not found:
        raise ValueError(f"its {name} is empty")
    return found


def _link(fields: Mapping[str, Any], name: str) -> str:
    """The job that this one does again; empty for none."""
    job_id = text(fields.get(name, ""), name)
    if job_id and not is_job_id(job_id):
        raise ValueError(f"its {name} is not the id of a job")
    return job_id


def _request(frozen: Any, prompt: Any, name: str) -> FrozenRequest:
    fields = _inner(frozen, name)
    stop = fields.get("stop", [])
    if not isinstance(stop, list) or not all(isinstance(each, str) and each for each in stop):
        raise ValueError(f"its {name}.stop is not a list of texts")
    echo = fields.get("echo", False)
    if not isinstance(echo, bool):
        raise ValueError(f"its {name}.echo is neither true nor false")
    return FrozenRequest(
        prompt_ids=_prompt(prompt, name),
        sampling=_sampling(_object(fields["sampling"], f"{name}.sampling"), name),
        max_tokens=whole(fields["max_tokens"], f"{name}.max_tokens", 0, MAX_INT32),
        stop=tuple(_unicode(each, f"{name}.stop") for each in stop),
        n=whole(fields.get("n", 1), f"{name}.n", 1, MOST_CHOICES),
        logprobs=_alternatives(fields, "logprobs", name),
        prompt_logprobs=_alternatives(fields, "prompt_logprobs", name),
        echo=echo,
    )


def _prompt(packed: Any, name: str) -> tuple[int, ...]:
    if not isinstance(packed, str):
        raise ValueError(f"the prompt of its {name} is not a text")
    ids = unpack_ids(base64.b64decode(packed, validate=True))
    if not ids:
        raise ValueError(f"its {name} has no prompt")
    whole(max(ids), "largest token id", 0, MAX_INT32)
    return ids


def _sampling(fields: Mapping[str, Any], name: str) -> Sampling:
    given = {each: _number(fields[each], f"{name}.{each}") for each in _NUMBERS if each in fields}
    seed = whole(fields["seed"], f"{name}.seed", -MAX_INT64 - 1, MAX_INT64)
    return Sampling(seed, top_k=whole(fields.get("top_k", 0), f"{name}.top_k", -1, MAX_INT32), **given)


def _number(value: Any, name: str) -> float:
    if type(value) not in (int, float) or not -_FARTHEST <= value <= _FARTHEST:
        raise ValueError(f"its {name} is not a number within {_FARTHEST:,.0f} of 0")
    return float(value)


def _alternatives(fields: Mapping[str, Any], which: str, name: str) -> int | None:
    value = fields.get(which)
    return None if value is None else whole(value, f"{name}.{which}", 0, MOST_ALTERNATIVES)


def _fallback(record: Mapping[str, Any], packed: Mapping[str, Any]) -> Fallback | None:
    if "fallback" not in record:
        return None
    fields = _inner(record["fallback"], "fallback")
    request = _request(fields["request"], packed.get("fallback_prompt", ""), "fallback.request")
    return Fallback(_name(fields, "model"), _name(fields, "lane"), _name(fields, "revision"), request)


def _metadata(value: Any) -> Mapping[str, str]:
    found = _inner(value, "metadata")
    for name, each in found.items():
        _unicode(name, "metadata")
        _unicode(each, "metadata")
    return found


def _unicode(value: Any, name: str) -> str:
    if not isinstance(value, str) or _LONE_SURROGATE.search(value):
        raise ValueError(f"its {name} holds what is no text")
    return value


def _inner(value: Any, name: str) -> Mapping[str, Any]:
    """An object that the record holds as JSON."""
    if not isinstance(value, str):
        raise ValueError(f"its {name} is not JSON in a text")
    return _object(json.loads(value), name)
