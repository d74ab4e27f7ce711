"""Which dead letters are meant, and where a walk through them stands. Knows the record, not where it is kept."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Self

from headrace.contract.errors import InvalidRequest
from headrace.contract.ids import is_job_id
from headrace.contract.job import Job

MOST_NAMED = 100
"""Ids that one filter may name."""

_PLACE = re.compile(r"(?a)(\d{1,15})\.(job_\w{26})(?:\.(\d{1,15}))?")


@dataclass(frozen=True, slots=True)
class DeadLetterFilter:
    """What a dead job must be like. None and empty let everything pass.

    `since` and `until` are milliseconds of the death, both ends included. `code` is that of the reason or of an error
    on the way to it: a job that ran out of retries is found by what was retried. With `ids` only these, at most
    MOST_NAMED of them. `redrives_before` leaves out redrives that were made in that millisecond or after it.
    """

    model: str = ""
    lane: str = ""
    tenant: str = ""
    code: str = ""
    since: int | None = None
    until: int | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    ids: tuple[str, ...] = ()
    redrives_before: int | None = None

    @property
    def is_empty(self) -> bool:
        return self == DeadLetterFilter()

    def takes_lane(self, lane: str) -> bool:
        """Whether a letter of this lane may pass."""
        return self.lane in ("", lane) and self.model in ("", lane.rpartition("@")[0])

    def as_of(self, began: int) -> Self:
        """Only what was dead in that millisecond, and no redrive that was made since: in one millisecond a letter may
        be redriven and dead again."""
        return replace(self, until=began if self.until is None else min(self.until, began), redrives_before=began)

    def takes(self, letter: Job) -> bool:
        """Whether a dead job passes every filter but that of its id."""
        died = letter.ended_at or 0
        return (
            self.takes_lane(letter.lane)
            and self.tenant in ("", letter.tenant)
            and (not self.code or self.code in codes_of(letter))
            and (self.since is None or died >= self.since)
            and (self.until is None or died <= self.until)
            and (
                self.redrives_before is None or not letter.redrive_of or (letter.created_at or 0) < self.redrives_before
            )
            and all(letter.metadata.get(name) == value for name, value in self.metadata.items())
        )


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """Where a letter stands among all: by the time of its death, in milliseconds, then by its id.

    `began` is when the redrive or purge began that has come here, in milliseconds of the store's clock. It takes what
    was dead by then: what dies again is parked behind every place, and it would meet that for ever. A list has none.
    """

    at: int
    job_id: str
    began: int | None = field(default=None, compare=False)

    @classmethod
    def of(cls, letter: Job) -> Self:
        return cls(letter.ended_at or 0, letter.id)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Inverse of `str`. Raises InvalidRequest."""
        match = _PLACE.fullmatch(text)
        if match is None or not is_job_id(match[2]):
            raise InvalidRequest(
                f"{text[:80]!r} is not a cursor of the dead letters.",
                param="cursor",
                next_step="Send the `cursor` of the answer before, unchanged, or none to begin at the first letter.",
            )
        return cls(int(match[1]), match[2], None if match[3] is None else int(match[3]))

    def __str__(self) -> str:
        return f"{self.at}.{self.job_id}" + ("" if self.began is None else f".{self.began}")


def codes_of(letter: Job) -> frozenset[str]:
    """The code of the reason and those of the errors on the way to it."""
    reason = () if letter.error is None else (letter.error.code,)
    return frozenset((*reason, *(past.code for past in letter.history)))


def workers_of(letter: Job) -> tuple[str, ...]:
    """The workers of the attempts that went wrong, each once, oldest first."""
    return tuple(dict.fromkeys(past.worker for past in letter.history if past.worker))
