"""`headrace jobs`: which jobs there are, and one of them in full. Knows columns; the client knows the listing."""

import time
from collections.abc import Mapping
from typing import Annotated, Any

import typer

from headrace.cli import output
from headrace.cli.options import ApiKey, AsJson, JobId, Url, connect, known_models
from headrace.client import JobView
from headrace.contract.job import JobClass, State

app = typer.Typer(invoke_without_command=True, help="The jobs there are, newest first.")

_HEADING = ("JOB", "STATE", "MODEL", "CLASS", "AGE", "TOKENS")
_STATES = [state.value.lower() for state in State]
_RELATED = ("redrive_of", "redriven_as", "replay_of", "fallback_of")
_TIMES = ("created_at", "queued_at", "leased_at", "first_token_at", "ended_at", "deadline_at")


def _states(incomplete: str) -> list[str]:
    return [name for name in ["active", "ended", *_STATES] if name.startswith(incomplete)]


@app.callback()
def jobs(
    context: typer.Context,
    state: Annotated[
        str | None,
        typer.Option(help="Only these: active, ended, or states with commas between.", autocompletion=_states),
    ] = None,
    model: Annotated[str | None, typer.Option(help="Only of this model.", autocompletion=known_models)] = None,
    job_class: Annotated[JobClass | None, typer.Option("--class", help="Only of this class.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="How many at most.")] = 20,
    json: AsJson = False,
    url: Url = None,
    api_key: ApiKey = None,
) -> None:
    """The jobs there are, newest first."""
    if context.invoked_subcommand:
        return
    with connect(url, api_key) as client:
        found = client.jobs(state=state, model=model, job_class=job_class, limit=limit)
        if json:
            for view in found:
                output.json_data(dict(view.raw))
            return
        now_ms = round(time.time() * 1000)
        output.table([_HEADING, *(_row(view, now_ms) for view in found)])


@app.command()
def show(job: JobId, json: AsJson = False, url: Url = None, api_key: ApiKey = None) -> None:
    """One job: its times, its tokens, and its answer or error."""
    with connect(url, api_key) as client:
        view = client.fetch(job)
    if json:
        output.json_data(dict(view.raw))
        return
    for name, value in _facts(view.raw).items():
        output.data(f"{name:<14}  {value}")
    for text in view.texts:
        output.data(f"\n{text}")


def _row(view: JobView, now_ms: int) -> tuple[str, ...]:
    created = view.raw.get("created_at")
    age = "-" if created is None else output.span((now_ms - created) / 1000)
    usage = view.usage
    tokens = f"{usage.prompt_tokens}+{usage.completion_tokens}" if usage else "-"
    return view.id, view.state.value.lower(), view.model, str(view.raw.get("class", "-")), age, tokens


def _facts(raw: Mapping[str, Any]) -> dict[str, str]:
    """What is worth a line, in the order in which it happened."""
    facts = {name: str(raw[name]) for name in ("id", "state", "model", "class", "kind", "attempt") if name in raw}
    facts |= {name: output.moment(raw[name]) for name in _TIMES if raw.get(name) is not None}
    if usage := raw.get("usage"):
        facts["tokens"] = f"{usage['prompt_tokens']} in, {usage['completion_tokens']} out"
    facts |= {f"  {key}": str(value) for key, value in (raw.get("metadata") or {}).items()}
    facts |= {name: raw[name] for name in _RELATED if raw.get(name)}
    if digests := raw.get("digests"):
        facts["digests"] = ", ".join(digests)
    if error := raw.get("error"):
        facts["error"] = f"{error['code']}: {error['message']}"
    return facts
