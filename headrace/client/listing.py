"""Which jobs there are, page by page. Knows the filters of `GET /v1/jobs` and its pages, not how they are fetched."""

from collections.abc import Iterable, Mapping
from datetime import datetime

from headrace.client import core
from headrace.client.result import JobView, read_view
from headrace.contract.errors import HeadraceError, InvalidRequest
from headrace.contract.job import JobClass, State

_PAGE = 100

States = State | str | Iterable[State | str]
Moment = datetime | int
"""A point in time: a datetime, or milliseconds since 1970 as a job's own times are."""


def filters(
    *,
    state: States | None,
    model: str | None,
    job_class: JobClass | str | None,
    created_after: Moment | None,
    created_before: Moment | None,
    metadata: Mapping[str, str] | None,
) -> dict[str, str]:
    """The query of a listing; what is None is left out."""
    states = [state] if isinstance(state, str) else state
    given = {
        "state": None if states is None else ",".join(str(one).lower() for one in states),
        "model": model,
        "class": None if job_class is None else str(job_class),
        "created_after": None if created_after is None else _milliseconds(created_after),
        "created_before": None if created_before is None else _milliseconds(created_before),
        **{f"metadata[{key}]": value for key, value in (metadata or {}).items()},
    }
    return {name: value for name, value in given.items() if value is not None}


class Pages:
    """One walk through a listing, newest job first."""

    def __init__(self, query: Mapping[str, str], limit: int | None) -> None:
        """`limit` bounds the jobs in all; None is as many as there are."""
        if limit is not None and limit < 1:
            raise InvalidRequest("The limit of a listing is at least 1.", param="limit")
        self._query = dict(query)
        self._left = limit
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
            raise HeadraceError(f"The gateway's answer is not a page of jobs ({error!r}).") from error
        if last is None:
            self._more = False
        else:
            self._query["after"] = str(last)
        if self._left is not None:
            self._left = max(0, self._left - len(jobs))
        return jobs


def _milliseconds(moment: Moment) -> str:
    return str(round(moment.timestamp() * 1000) if isinstance(moment, datetime) else moment)
