"""What may be asked of dead letters, and how they are shown. Knows names and ranges; reads no store.

OpenAI has no such thing; the style of bodies, lists and errors is that of its neighbours here.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Annotated, Any

from pydantic import Field

from headrace.contract.dead_letter_query import MOST_NAMED, DeadLetterFilter, Place, workers_of
from headrace.contract.errors import ErrorInfo, HeadraceError, InvalidRequest
from headrace.contract.events import Delta, Event, to_json
from headrace.contract.ids import is_job_id
from headrace.contract.job import Job
from headrace.openai.projection import error_object, usage_object
from headrace.openai.schema import MAX_DEADLINE_SECONDS, UNICODE, Body, MetadataKey, MetadataValue, parse

MOST_AT_ONCE = 100
LAST_MS = 2**53

Name = Annotated[str, Field(min_length=1, max_length=256), UNICODE]
Milliseconds = Annotated[int, Field(ge=0, le=LAST_MS)]

_METADATA = re.compile(r"metadata\[(.{1,64})\]")
_NUMBERS = frozenset({"since", "until", "limit"})


class LettersBody(Body):
    """Which letters: each field narrows them down. `limit` bounds one answer; `cursor` is that of the answer before."""

    ids: Annotated[list[str], Field(min_length=1, max_length=MOST_NAMED)] | None = None
    model: Name | None = None
    lane: Name | None = None
    tenant: Name | None = None
    code: Name | None = None
    since: Milliseconds | None = None
    until: Milliseconds | None = None
    metadata: Annotated[dict[MetadataKey, MetadataValue], Field(max_length=16)] | None = None
    limit: Annotated[int, Field(ge=1, le=MOST_AT_ONCE)] | None = None
    cursor: str | None = None

    def wanted(self) -> DeadLetterFilter:
        """Raises InvalidRequest for what cannot be the id of a job."""
        for place, job_id in enumerate(self.ids or ()):
            if not is_job_id(job_id):
                raise InvalidRequest(f"{job_id[:80]!r} is not a job's id.", param=f"ids[{place}]")
        return DeadLetterFilter(
            model=self.model or "",
            lane=self.lane or "",
            tenant=self.tenant or "",
            code=self.code or "",
            since=self.since,
            until=self.until,
            metadata=self.metadata or {},
            ids=tuple(dict.fromkeys(self.ids or ())),
        )

    def after(self) -> Place | None:
        """Raises InvalidRequest for what is no cursor."""
        return Place.parse(self.cursor) if self.cursor else None


class RedriveBody(LettersBody):
    """`POST /v1/dlq/redrive`. Without a filter, all of them."""

    deadline_seconds: Annotated[float, Field(gt=0, le=MAX_DEADLINE_SECONDS)] | None = None
    dry_run: bool | None = None

    @property
    def deadline_ms(self) -> int | None:
        """At least one: rounded to none, the letter would leave and its job be dead on arrival."""
        return None if self.deadline_seconds is None else max(1, round(self.deadline_seconds * 1000))


class PurgeBody(LettersBody):
    """`POST /v1/dlq/purge`. Without a filter only with `all`, since nothing brings a purged job back."""

    all: bool | None = None
    dry_run: bool | None = None

    def wanted(self) -> DeadLetterFilter:
        found = super().wanted()
        if found.is_empty and not self.all:
            raise InvalidRequest(
                "Nothing says which dead letters to purge.", param="ids", next_step="Give ids or a filter, or `all`."
            )
        return found


def letters_query(parameters: Iterable[tuple[str, str]]) -> LettersBody:
    """From the names and values of a query string: the fields of `LettersBody`, with `metadata[<name>]`, and `ids` as a
    list with commas. Raises UnknownParameter and InvalidRequest."""
    fields: dict[str, Any] = {}
    metadata: dict[str, str] = {}
    for name, value in parameters:
        key = _METADATA.fullmatch(name)
        if name in fields or (key is not None and key[1] in metadata):
            raise InvalidRequest(f"`{name[:80]}` was given twice.", param=name[:80])
        if key is not None:
            metadata[key[1]] = value
        elif name in _NUMBERS:
            fields[name] = int(value) if re.fullmatch(r"(?a)\d{1,16}", value) else value
        else:
            fields[name] = value.split(",") if name == "ids" else value
    return parse(LettersBody, fields | ({"metadata": metadata} if metadata else {}))


def letter_object(letter: Job) -> dict[str, Any]:
    """One dead letter as a list shows it. Times are milliseconds; `offset` counts the tokens that were journaled."""
    reason = letter.error or ErrorInfo("internal_error", "No reason was kept.")
    return {
        "id": letter.id,
        "object": "dead_letter",
        "model": letter.model,
        "lane": letter.lane,
        "revision": letter.revision,
        "class": letter.job_class.value,
        "kind": letter.kind.value,
        "tenant": letter.tenant,
        "reason": {"code": reason.code, "message": reason.message},
        "attempts": letter.attempt,
        "retries": letter.retries,
        "deaths": letter.deaths_total,
        "history": [asdict(past) for past in letter.history],
        "workers": list(workers_of(letter)),
        "created_at": letter.created_at,
        "ended_at": letter.ended_at,
        "usage": None if letter.usage is None else usage_object(letter.usage),
        "metadata": dict(letter.metadata),
        "redrive_of": letter.redrive_of or None,
    }


def snapshot_object(
    letter: Job, prompt: str | HeadraceError, choices: Sequence[Mapping[str, Any]], events: Sequence[Event]
) -> dict[str, Any]:
    """One dead letter with all that is kept of it: the frozen request, each choice so far, and every event.

    `prompt` is its text, or why that cannot be shown. Deltas are shown without text, which the choices have.
    """
    request = asdict(letter.request)
    del request["prompt_ids"]
    request["prompt_tokens"] = letter.usage.prompt_tokens if letter.usage else len(letter.request.prompt_ids)
    shown, error = (prompt, None) if isinstance(prompt, str) else (None, error_object(prompt))
    return {
        **letter_object(letter),
        "request": request,
        "prompt": {"text": shown, "error": error},
        "choices": [dict(choice) for choice in choices],
        "events": [_event_object(event) for event in events],
    }


def letters_page(letters: Sequence[Job], after: Place | None) -> dict[str, Any]:
    """`GET /v1/dlq`."""
    return {"object": "list", "data": [letter_object(letter) for letter in letters], **_more(after)}


def outcomes_page(
    object_name: str, done: Sequence[Mapping[str, Any]], refused: Mapping[str, ErrorInfo], after: Place | None
) -> dict[str, Any]:
    """What a redrive or a purge did: the letters that left, and those that stay with the reason."""
    left = [{"id": job_id, "error": error_object(error)} for job_id, error in refused.items()]
    return {"object": object_name, "data": [dict(each) for each in done], "refused": left, **_more(after)}


def _more(after: Place | None) -> dict[str, Any]:
    return {"has_more": after is not None, "cursor": None if after is None else str(after)}


def _event_object(event: Event) -> dict[str, Any]:
    shown = to_json(event)
    if isinstance(event, Delta):
        del shown["text"]
    return shown


PARAMETERS: Mapping[str, str] = {
    "limit": f"How many letters at most: 1 to {MOST_AT_ONCE}, 20 if not given.",
    "cursor": "The `cursor` of the page before.",
    "ids": "Only these jobs, with commas between.",
    "model": "The id of a model.",
    "lane": "A lane, `<model>@<release>`.",
    "tenant": "A tenant.",
    "code": "The code of the reason, or of an error on the way to it.",
    "since": "Milliseconds: those that died from then on.",
    "until": "Milliseconds: those that died until then.",
    "metadata[<name>]": "The value that the job's metadata must have under this name.",
}
"""Every parameter of the list, as the API document describes it."""
