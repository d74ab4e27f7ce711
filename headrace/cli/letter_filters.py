"""Which dead letters: the options that the verbs of `headrace dlq` share. Knows what is typed, not what it is for."""

import re
import time
from collections.abc import Callable
from datetime import datetime
from functools import wraps
from inspect import Signature, signature
from typing import Annotated, Any, Concatenate

import typer

from headrace.cli.options import known_models
from headrace.client.letters import Filters
from headrace.contract.errors import InvalidRequest

_AGES = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}


def filters(
    ids: Annotated[list[str] | None, typer.Argument(help="Only these: job_… job_…", show_default=False)] = None,
    model: Annotated[str | None, typer.Option(help="Only of this model.", autocompletion=known_models)] = None,
    lane: Annotated[str | None, typer.Option(help="Only of this lane: <model>@<release>.")] = None,
    tenant: Annotated[str | None, typer.Option(help="Only of this tenant.")] = None,
    code: Annotated[str | None, typer.Option(help="Only with this code, as their reason or on the way to it.")] = None,
    since: Annotated[
        str | None, typer.Option(help="Died from then on: 30m, 2h or 7d ago, or 2026-11-23T14:00.")
    ] = None,
    until: Annotated[str | None, typer.Option(help="Died until then, said likewise.")] = None,
    metadata: Annotated[
        list[str] | None, typer.Option(help="key=value in the job's metadata; may come several times.")
    ] = None,
) -> Filters:
    """Raises InvalidRequest for what is no time and no pair."""
    now = time.time()
    pairs = dict(_pair(text) for text in metadata or [])
    return Filters(
        ids=ids or None,
        model=model,
        lane=lane,
        tenant=tenant,
        code=code,
        since=None if since is None else _moment_ms(since, now),
        until=None if until is None else _moment_ms(until, now),
        metadata=pairs or None,
    )


def filtered(verb: Callable[Concatenate[Filters, ...], None]) -> Callable[..., None]:
    """A verb whose first argument is the filter, as Typer wants it: with the options of `filters`, then its own."""
    shared = signature(filters).parameters
    _, *own = signature(verb).parameters.values()

    @wraps(verb)
    def run(**given: Any) -> None:
        wanted = filters(**{name: given.pop(name) for name in shared})
        verb(wanted, **given)

    run.__annotations__ = {each.name: each.annotation for each in (*shared.values(), *own)}
    run.__signature__ = Signature([*shared.values(), *own])  # type: ignore[attr-defined]
    return run


def _pair(text: str) -> tuple[str, str]:
    key, sign, value = text.partition("=")
    if not key or not sign:
        raise InvalidRequest(f"{text!r} is not key=value.", param="metadata")
    return key, value


def _moment_ms(text: str, now: float) -> int:
    """Milliseconds since 1970 of an age (30m, 2h, 7d) or of a date and time, local where it names no zone."""
    age = re.fullmatch(r"(?a)(\d{1,9})([smhd])", text)
    if age is not None:
        return round((now - int(age[1]) * _AGES[age[2]]) * 1000)
    try:
        return round(datetime.fromisoformat(text).timestamp() * 1000)
    except (ValueError, OverflowError):
        raise InvalidRequest(
            f"{text!r} is not a time.", next_step="Say an age like 30m, 2h or 7d, or a time like 2026-11-23T14:00."
        ) from None
