"""What a query string asks of a list of jobs. Knows names and ranges; reads no store."""

import re
from collections.abc import Callable, Iterable, Mapping
from enum import StrEnum
from typing import Any, TypeVar

from headrace.contract.errors import InvalidRequest, UnknownParameter
from headrace.contract.ids import is_job_id
from headrace.contract.job import TERMINAL, JobClass, Kind, State
from headrace.contract.job_query import JobQuery

MOST_LISTED = 100
LAST_MS = 2**53
_GROUPS = {"active": frozenset(State) - TERMINAL, "ended": TERMINAL}
_METADATA = re.compile(r"metadata\[(.{1,64})\]")
_NUMBER = re.compile(r"(?a)\d{1,16}")
E = TypeVar("E", bound=StrEnum)


def job_query(parameters: Iterable[tuple[str, str]]) -> JobQuery:
    """From the names and values of a query string, in any order. Only `state` may come more than once, or be a list
    with commas.

    Raises UnknownParameter for a name that is not listed in `PARAMETERS`, InvalidRequest for a bad value.
    """
    fields: dict[str, Any] = {}
    states: set[State] = set()
    metadata: dict[str, str] = {}
    for name, value in parameters:
        key = _METADATA.fullmatch(name)
        if key is not None:
            metadata[key[1]] = value
        elif name == "state":
            states |= _states(value)
        elif name not in _READERS:
            raise UnknownParameter(f"Unknown or unsupported parameter: `{name[:80]}`.", param=name[:80])
        elif name in fields:
            raise InvalidRequest(f"`{name}` was given twice.", param=name)
        else:
            fields[name] = _READERS[name](name, value)
    if "after" in fields and "before" in fields:
        raise InvalidRequest("Give `after` or `before`, not both.", param="before")
    if "class" in fields:
        fields["job_class"] = fields.pop("class")
    return JobQuery(**fields, states=frozenset(states), metadata=metadata)


def _states(value: str) -> frozenset[State]:
    found: set[State] = set()
    for word in value.lower().split(","):
        if word in _GROUPS:
            found |= _GROUPS[word]
        elif word.upper() in State.__members__:
            found.add(State[word.upper()])
        else:
            raise _bad("state", f"one of {', '.join([*_GROUPS, *(state.lower() for state in State)])}")
    return frozenset(found)


def _number(name: str, value: str, low: int, high: int) -> int:
    if not _NUMBER.fullmatch(value) or not low <= int(value) <= high:
        raise _bad(name, f"a whole number from {low} to {high}")
    return int(value)


def _job_id(name: str, value: str) -> str:
    if not is_job_id(value):
        raise _bad(name, "the id of a job, as `last_id` or `first_id` of a page")
    return value


def _model(name: str, value: str) -> str:
    if not 0 < len(value) <= 256:
        raise _bad(name, "the id of a model")
    return value


def _one_of(words: type[E]) -> Callable[[str, str], E]:
    def read(name: str, value: str) -> E:
        if value.upper() not in words.__members__ or not value.islower():
            raise _bad(name, f"one of {', '.join(words)}")
        return words(value)

    return read


def _milliseconds(name: str, value: str) -> int:
    return _number(name, value, 0, LAST_MS)


def _bad(name: str, wanted: str) -> InvalidRequest:
    return InvalidRequest(f"Invalid value for `{name}`: should be {wanted}.", param=name)


_READERS: Mapping[str, Callable[[str, str], Any]] = {
    "limit": lambda name, value: _number(name, value, 1, MOST_LISTED),
    "after": _job_id,
    "before": _job_id,
    "model": _model,
    "class": _one_of(JobClass),
    "kind": _one_of(Kind),
    "created_after": _milliseconds,
    "created_before": _milliseconds,
}

PARAMETERS: Mapping[str, str] = {
    "limit": f"How many jobs at most: 1 to {MOST_LISTED}, 20 if not given.",
    "after": "A job id: the page behind it (older jobs).",
    "before": "A job id: the page in front of it (newer jobs).",
    "state": "States as the job object names them, with commas between; also `active` and `ended`.",
    "model": "The id of a model.",
    "class": "One of interactive, standard, batch, background.",
    "kind": "One of chat, completion, embedding.",
    "created_after": "Milliseconds: jobs from then on.",
    "created_before": "Milliseconds: jobs until then.",
    "metadata[<name>]": "The value that the job's metadata must have under this name.",
}
"""Every parameter, as the API document describes it."""
