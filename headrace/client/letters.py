"""Dead letters as the gateway shows them, and the walks through them, without any I/O. Knows `/v1/dlq`'s JSON."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self, TypedDict

from headrace.client import core
from headrace.client.listing import Moment, checked_limit, milliseconds
from headrace.client.pace import Pace
from headrace.client.sending import query_string
from headrace.contract.errors import ErrorInfo, InvalidRequest

MOST_AT_ONCE = 100
"""Letters that one call lists, redrives or purges."""

_PATIENCE_S = 30.0
"""A redrive may have large prompts to fetch."""

_LONGEST_SLEEP_S = 60.0
"""However slow the pace: after a sleep the clock is looked at again."""


class Filters(TypedDict, total=False):
    """Which dead letters. What is left out, or None, lets everything pass.

    `code` is that of the reason or of an error on the way to it; `since` and `until` bound the time of death.
    """

    ids: Sequence[str] | None
    model: str | None
    lane: str | None
    tenant: str | None
    code: str | None
    since: Moment | None
    until: Moment | None
    metadata: Mapping[str, str] | None


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A dead job that waits for a person. `raw` is the whole JSON object: history, times, and after `show` the frozen
    request, prompt, choices so far and events."""

    id: str
    model: str
    reason: ErrorInfo
    attempts: int
    deaths: int
    workers: tuple[str, ...]
    ended_at: int
    raw: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class LetterOutcome:
    """What became of one letter: with an `error` it stays parked. After a redrive `redriven_as` is the new job."""

    id: str
    redriven_as: str = ""
    error: ErrorInfo | None = None


def show_call(job_id: str) -> core.Call:
    return core.Call("GET", f"/v1/dlq/{core.checked_id(job_id)}", expects="id")


def read_letter(data: Mapping[str, Any]) -> DeadLetter:
    """Raises HeadraceError when the object is not a dead letter as this version knows it."""
    try:
        return DeadLetter(
            id=data["id"],
            model=data["model"],
            reason=_error(data["reason"]),
            attempts=data["attempts"],
            deaths=data["deaths"],
            workers=tuple(data["workers"]),
            ended_at=data["ended_at"],
            raw=data,
        )
    except (KeyError, TypeError) as error:
        raise core.unknown("a dead letter", error) from error


class LetterPages:
    """One walk through the list, the latest death first. `limit` bounds the letters in all; None is all there are."""

    def __init__(self, wanted: Filters, limit: int | None) -> None:
        fields = _fields(wanted)
        metadata = fields.pop("metadata", {})
        ids = {"ids": ",".join(fields.pop("ids"))} if "ids" in fields else {}
        self._query = {**fields, **ids, **{f"metadata[{name}]": value for name, value in metadata.items()}}
        self._left = checked_limit(limit)
        self._more = True

    def next_call(self) -> core.Call | None:
        """What to ask for next; None when all that is wanted has been read."""
        if not self._more or self._left == 0:
            return None
        count = MOST_AT_ONCE if self._left is None else min(MOST_AT_ONCE, self._left)
        return core.Call("GET", f"/v1/dlq?{query_string({**self._query, 'limit': count})}", expects="data")

    def read(self, reply: core.Reply) -> list[DeadLetter]:
        page = core.read_json(reply)
        try:
            letters = [read_letter(each) for each in page["data"]]
            self._more = bool(page["has_more"])
            self._query["cursor"] = page["cursor"]
        except (KeyError, TypeError) as error:
            raise core.unknown("a page of dead letters", error) from error
        if self._left is not None:
            self._left -= len(letters)
        return letters


class Walk:
    """One redrive or purge, oldest first, in calls of at most MOST_AT_ONCE, and no faster than its pace.

    `options` are further fields of each call; `pace` None means as fast as it goes.
    """

    def __init__(
        self, verb: str, wanted: Filters, options: Mapping[str, Any], limit: int | None, pace: Pace | None
    ) -> None:
        self._verb = verb
        self._fields = _fields(wanted) | core.without_none(options)
        self._ids: list[str] | None = self._fields.pop("ids", None)
        self._left = checked_limit(limit)
        self._pace = pace
        self._cursor: str | None = None
        self._asked: list[str] = []
        self._more = True

    @classmethod
    def redrive(
        cls,
        wanted: Filters,
        *,
        rate: float | None,
        limit: int | None,
        deadline_seconds: float | None,
        dry_run: bool,
        now: float,
    ) -> Self:
        """At most `rate` letters a second, unless nothing is done."""
        pace = None if rate is None else Pace.of(rate, now)
        options = {"deadline_seconds": deadline_seconds, "dry_run": dry_run}
        return cls("redrive", wanted, options, limit, None if dry_run else pace)

    @classmethod
    def purge(cls, wanted: Filters, *, everything: bool, limit: int | None, dry_run: bool) -> Self:
        return cls("purge", wanted, {"all": everything or None, "dry_run": dry_run}, limit, None)

    def next(self, now: float) -> core.Call | float | None:
        """What to say next, or the seconds until there is something to say, or None at the end."""
        if not self._more or self._left == 0:
            return None
        count = MOST_AT_ONCE if self._pace is None else min(MOST_AT_ONCE, self._pace.due(now))
        if self._pace is not None and count == 0:
            return min(self._pace.next_at - now, _LONGEST_SLEEP_S)
        if self._left is not None:
            count = min(count, self._left)
        # With a limit, a repeat of one that was heard would go beyond it.
        body, without_limit = self._body(count), self._left is None
        path = f"/v1/dlq/{self._verb}"
        return core.Call("POST", path, json=body, wait_s=_PATIENCE_S, idempotent=without_limit, expects="data")

    def read(self, reply: core.Reply, now: float) -> list[LetterOutcome]:
        page = core.read_json(reply)
        try:
            done = [LetterOutcome(each["id"], each.get("redriven_as") or "") for each in page["data"]]
            refused = [LetterOutcome(each["id"], error=_error(each["error"])) for each in page["refused"]]
            has_more, self._cursor = bool(page["has_more"]), page["cursor"]
        except (KeyError, TypeError) as error:
            raise core.unknown("what became of dead letters", error) from error
        if not has_more:
            self._asked = []
        self._more = has_more or bool(self._ids)
        if self._pace is not None:
            self._pace = self._pace.took(now, len(done))
        if self._left is not None:
            self._left -= min(self._left, len(done))
        return done + refused

    def _body(self, count: int) -> dict[str, Any]:
        body = {**self._fields, "limit": count}
        if self._ids is not None:
            if not self._asked:
                self._asked, self._ids = self._ids[:count], self._ids[count:]
            body["ids"] = self._asked
        return body | ({"cursor": self._cursor} if self._cursor else {})


def _fields(wanted: Filters) -> dict[str, Any]:
    """The filter as JSON. Raises InvalidRequest for what cannot be a job's id, and for no ids at all: that would be
    everything."""
    given: dict[str, Any] = core.without_none(wanted)
    for name in {"since", "until"} & given.keys():
        given[name] = milliseconds(given[name])
    if "ids" in given:
        given["ids"] = [core.checked_id(job_id) for job_id in given["ids"]]
        if not given["ids"]:
            raise InvalidRequest("No ids were given.", param="ids", next_step="Leave `ids` out to mean every letter.")
    return given


def _error(data: Mapping[str, Any]) -> ErrorInfo:
    return ErrorInfo(data["code"], data["message"])
