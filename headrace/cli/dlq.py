"""`headrace dlq`: the dead jobs that wait for a person. Knows arguments and columns; the client does the rest."""

import sys
import time
from collections.abc import Sequence
from typing import Annotated, Any

import typer

from headrace.cli import output
from headrace.cli.letter_filters import filtered
from headrace.cli.options import ApiKey, AsJson, JobId, Url, connect, finite
from headrace.client import DeadLetter, LetterOutcome
from headrace.client.letters import Filters
from headrace.contract.errors import InvalidRequest, JobNotFound

app = typer.Typer(no_args_is_help=True, help="Dead jobs: look at them, redrive or purge them.")

_HEADING = ("JOB", "MODEL", "REASON", "ATTEMPTS", "DEATHS", "DIED", "LAST ERROR")
_WIDE = 60

Limit = Annotated[int | None, typer.Option(min=1, help="How many at most.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only say which.")]


@app.command("list")
@filtered
def list_letters(
    wanted: Filters,
    limit: Annotated[int, typer.Option(min=1, help="How many at most.")] = 20,
    json: AsJson = False,
    url: Url = None,
    api_key: ApiKey = None,
) -> None:
    """Dead jobs, the latest death first."""
    with connect(url, api_key) as client:
        found = client.dlq.list(limit=limit, **wanted)
        if json:
            for letter in found:
                output.json_data(dict(letter.raw))
            return
        now_ms = round(time.time() * 1000)
        output.table([_HEADING, *(_row(letter, now_ms) for letter in found)])


@app.command()
def show(job: JobId, json: AsJson = False, url: Url = None, api_key: ApiKey = None) -> None:
    """One dead job in full: what went wrong each time, its request, its prompt, and how far it came."""
    with connect(url, api_key) as client:
        letter = client.dlq.show(job)
    if json:
        output.json_data(dict(letter.raw))
        return
    for line in _lines(letter.raw):
        output.data(line)


@app.command()
@filtered
def redrive(
    wanted: Filters,
    rate: Annotated[float | None, typer.Option(help="Jobs a second; as fast as it goes without.")] = None,
    limit: Limit = None,
    deadline: Annotated[
        float | None, typer.Option(help="Seconds that each new job has; none without.", callback=finite)
    ] = None,
    dry_run: DryRun = False,
    json: AsJson = False,
    url: Url = None,
    api_key: ApiKey = None,
) -> None:
    """Accept them again as new jobs, the oldest first; without a filter all of them. Prints the old and the new id.

    Stop it whenever you like and say it again: no job is redriven twice. Exits with 1 if any had to stay parked.
    """
    with connect(url, api_key) as client:
        outcomes = client.dlq.redrive(
            rate=rate,
            limit=limit,
            deadline_seconds=deadline,
            dry_run=dry_run,
            tell=lambda outcome: _tell(outcome, json),
            **wanted,
        )
    _sum_up(outcomes, "would be redriven" if dry_run else "redriven")


@app.command()
@filtered
def purge(
    wanted: Filters,
    everything: Annotated[bool, typer.Option("--all", help="All of them, where there is no filter.")] = False,
    limit: Limit = None,
    dry_run: DryRun = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    json: AsJson = False,
    url: Url = None,
    api_key: ApiKey = None,
) -> None:
    """Delete them for good: records, events and prompts. Asks first, unless it is told --yes."""
    with connect(url, api_key) as client:
        if not (yes or dry_run):
            doomed = client.dlq.purge(everything=everything, limit=limit, dry_run=True, **wanted)
            _confirm(sum(outcome.error is None for outcome in doomed))
            # Nobody was asked about those that have died since.
            wanted = Filters(ids=[outcome.id for outcome in doomed])
        outcomes = client.dlq.purge(
            everything=everything,
            limit=limit,
            dry_run=dry_run,
            tell=lambda outcome: _tell(outcome, json),
            **wanted,
        )
    _sum_up(outcomes, "would be purged" if dry_run else "purged")


def _confirm(count: int) -> None:
    if not count:
        raise JobNotFound("There are no such dead letters.", next_step="Look at them: headrace dlq list")
    if not sys.stdin.isatty():
        raise InvalidRequest(f"{_dead_jobs(count)} would be purged for good.", next_step="Say it again with --yes.")
    typer.confirm(f"Purge {_dead_jobs(count)} for good?", abort=True, err=True)


def _dead_jobs(count: int) -> str:
    return f"{count} dead job{'' if count == 1 else 's'}"


def _tell(outcome: LetterOutcome, json: bool) -> None:
    if json:
        error = None if outcome.error is None else {"code": outcome.error.code, "message": outcome.error.message}
        output.json_data({"id": outcome.id, "redriven_as": outcome.redriven_as or None, "error": error})
    elif outcome.error is not None:
        output.say(f"{outcome.id}  left: {outcome.error.code}: {outcome.error.message}")
    else:
        output.data(f"{outcome.id}  {outcome.redriven_as}".rstrip())


def _sum_up(outcomes: Sequence[LetterOutcome], done: str) -> None:
    left = sum(outcome.error is not None for outcome in outcomes)
    where = "it is" if left == 1 else "they are"
    output.say(f"{len(outcomes) - left} {done}" + (f", {left} left where {where}" if left else ""))
    if left:
        raise typer.Exit(1)


def _row(letter: DeadLetter, now_ms: int) -> tuple[str, ...]:
    history = letter.raw["history"]
    last = f"{history[-1]['code']}: {history[-1]['message']}" if history else letter.reason.message
    return (
        letter.id,
        letter.model,
        letter.reason.code,
        str(letter.attempts),
        str(letter.deaths),
        output.span((now_ms - letter.ended_at) / 1000),
        last if len(last) <= _WIDE else f"{last[: _WIDE - 1]}…",
    )


def _lines(raw: Any) -> list[str]:
    """What is worth a line, what happened in the order in which it did, and the texts."""
    request = raw["request"]
    facts = {
        "id": raw["id"],
        "reason": f"{raw['reason']['code']}: {raw['reason']['message']}",
        "lane": raw["lane"],
        "class": raw["class"],
        "tenant": raw["tenant"],
        "created_at": output.moment(raw["created_at"]),
        "ended_at": output.moment(raw["ended_at"]),
        "counted": f"{raw['attempts']} attempts, {raw['retries']} retries, {raw['deaths']} deaths",
        "redrive_of": raw["redrive_of"],
        "tokens": f"{request['prompt_tokens']} in, {sum(one['tokens'] for one in raw['choices'])} out"
        f" of at most {request['max_tokens']}",
        "sampling": " ".join(f"{name}={value}" for name, value in request["sampling"].items()),
        "stop": ", ".join(map(repr, request["stop"])),
        **{f"  {key}": value for key, value in raw["metadata"].items()},
    }
    lines = [f"{name:<12}  {value}" for name, value in facts.items() if value not in (None, "")]
    lines += [
        f"attempt {past['attempt']:<3}   {output.moment(past['at'])}  {past['worker']}  after {past['offset']} tokens  "
        f"{past['code']}: {past['message']}"
        for past in raw["history"]
    ]
    prompt = raw["prompt"]
    lines += ["", "prompt:", prompt["text"] if prompt["error"] is None else f"({prompt['error']['message']})"]
    for choice in raw["choices"]:
        lines += ["", f"choice {choice['index']}, as far as it came:", choice["text"] or ""]
    return lines
