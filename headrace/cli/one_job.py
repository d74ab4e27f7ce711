"""`headrace submit`, `events` and `cancel`: jobs by hand. Knows arguments and printing; the client does the rest."""

import sys
from typing import Annotated, Any

import typer

from headrace.cli import output
from headrace.cli.options import ApiKey, AsJson, JobId, Model, Url, connect, finite, only_model
from headrace.client import JobHandle
from headrace.client.result import failure
from headrace.contract.errors import InvalidRequest
from headrace.contract.events import Delta, Event, to_json
from headrace.contract.job import JobClass


def submit(
    prompt: Annotated[str, typer.Argument(help="What to ask; - reads standard input.")],
    model: Model = None,
    system: Annotated[str | None, typer.Option(help="A system message in front.")] = None,
    max_tokens: Annotated[int | None, typer.Option(help="Most tokens to generate.")] = None,
    temperature: Annotated[float | None, typer.Option(help="0 is greedy.")] = None,
    seed: Annotated[int | None, typer.Option(help="Same seed, same answer.")] = None,
    job_class: Annotated[JobClass | None, typer.Option("--class", help="How urgent.")] = None,
    deadline: Annotated[
        float | None, typer.Option(help="Seconds after which it is not wanted any more.", callback=finite)
    ] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Wait for the answer and print it.")] = False,
    stream: Annotated[bool, typer.Option("--stream", help="Print the answer as it comes.")] = False,
    json: AsJson = False,
    url: Url = None,
    api_key: ApiKey = None,
) -> None:
    """Queue one chat job and print its id, or its answer with --wait or --stream."""
    text = _read_stdin() if prompt == "-" else prompt
    messages = [{"role": "system", "content": system}] if system else []
    messages.append({"role": "user", "content": text})
    with connect(url, api_key) as client:
        handle = client.submit(
            model=model or only_model(client),
            messages=messages,
            max_tokens=max_tokens,
            temperature=temperature,
            seed=seed,
            job_class=job_class,
            deadline_seconds=deadline,
        )
        if stream or wait:
            output.say(handle.id)
            _answer(handle, stream, json)
        elif json:
            output.json_data({"id": handle.id})
        else:
            output.data(handle.id)


def events(
    job: JobId,
    cursor: Annotated[str, typer.Option(help="Go on behind this cursor (printed with --json).")] = "",
    json: AsJson = False,
    url: Url = None,
    api_key: ApiKey = None,
) -> None:
    """Follow a job's events to its end, across lost connections."""
    with connect(url, api_key) as client:
        for event, behind in client.job(job).stream_with_cursors(cursor):
            if json:
                output.json_data({"cursor": behind, **to_json(event)})
            else:
                output.data(_describe(event))


def cancel(job: JobId, json: AsJson = False, url: Url = None, api_key: ApiKey = None) -> None:
    """End a job now, wherever it is, and print how it stands."""
    with connect(url, api_key) as client:
        view = client.job(job).cancel()
        if json:
            output.json_data(dict(view.raw))
        else:
            output.data(view.state.value.lower())


def _read_stdin() -> str:
    try:
        return sys.stdin.buffer.read().decode("utf-8")
    except UnicodeDecodeError as error:
        raise InvalidRequest(f"Standard input is not UTF-8 (byte {error.start}).") from error


def _answer(handle: JobHandle, stream: bool, json: bool) -> None:
    if not stream:
        result = handle.wait()
        if json:
            output.json_data(dict(handle.refresh().raw))
        else:
            output.data(result.text)
        return
    for event in handle.stream():
        if json:
            output.json_data(to_json(event))
        elif isinstance(event, Delta):
            print(event.text, end="", flush=True)
        if error := failure(event, handle.id):
            if not json:
                print()
            raise error
    if not json:
        print()


def _describe(event: Event) -> str:
    fields: dict[str, Any] = to_json(event)
    shown = [f"{name}={value!r}" for name, value in fields.items() if name not in ("seq", "type", "token_ids", "job")]
    return f"{fields['seq']:>4}  {fields['type']:<9}  {' '.join(shown)}"
