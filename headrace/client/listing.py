"""Which jobs there are, page by page. Knows the filters of `GET /v1/jobs` and its pages, not how they are fetched."""

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import TypedDict

from headrace.client import core
from headrace.client.result import JobView, read_view
from headrace.contract.errors import InvalidRequest
from headrace.contract.job import JobClass, State

_PAGE = 100

States = State | str | Iterable[State | str]
Moment = datetime | int
"""A point in time: a datetime, or milliseconds since 1970 as a job's own times are."""


class Filters(TypedDict, total=False):
    """Which jobs. What is left out, or None, lets everything pass.

    `state` is one or several states, or `active` or `ended`; `metadata` must match in every pair given.
    """

    state: States | None
    model: str | None
    job_class: JobClass | str | None
    created_after: Moment | None
    created_before: Moment | None
    metadata: Mapping[str, str] | None


class Pages:
    """One walk through a listing, newest job first. `limit` bounds the jobs in all; None is as many as there are."""

    def __init__(self, wanted: Filters, limit: int | None) -> None:
        self._query = _query(**wanted)
        self._left = checked_limit(limit)
        self._more = True

    def next_call(self) -> core.Call | None:
        """What to ask for next; None when all that is wanted has been read."""
        if not self._more or self._left == 0:
            return None
        return core.jobs_call({**self._query, "limit": str(_PAGE if self._left is None else min(_PAGE, self._left))})

    def read(self, reply: core.Reply) -> list[JobView]:
        """The jobs of a page. Raises HeadraceError when the answer is not one."""
        page = core.read_json(reply)
        try:
            jobs = [read_view(job) for job in page["data"]]
            self._more, last = bool(page["has_more"]), page["last_id"]
        except (KeyError, TypeError) as error:
            raise core.unknown("a page of jobs", error) from error
        if last is None:
            self._more = False
        else:
            self._query["after"] = str(last)
        if self._left is not None:
            self._left = max(0, self._left - len(jobs))
        return jobs


def milliseconds(moment: Moment) -> int:
    """Since 1970."""
    return round(moment.timestamp() * 1000) if isinstance(moment, datetime) else moment


def checked_limit(limit: int | None) -> int | None:
    """Raises InvalidRequest for one that lets nothing pass."""
    if limit is not None and limit < 1:
        raise InvalidRequest("A limit is at least 1.", param="limit")
    return limit


def _query(
    *,
    state: States | None = None,
    model: str | None = None,
    job_class: JobClass | str | None = None,
    created_after: Moment | None = None,
    created_before: Moment | None = None,
    metadata: Mapping[str, str] | None = None,
) -> dict[str, str]:
    states = [state] if isinstance(state, str) else state
    return core.without_none(
        {
            "state": None if states is None else ",".join(str(one).lower() for one in states),
            "model": model,
            "class": None if job_class is None else str(job_class),
            "created_after": None if created_after is None else str(milliseconds(created_after)),
            "created_before": None if created_before is None else str(milliseconds(created_before)),
            **{f"metadata[{key}]": value for key, value in (metadata or {}).items()},
        }
    )
