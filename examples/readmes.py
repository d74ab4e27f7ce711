"""Documents in, answers out: a summary of each installed package's description, through a Headrace fleet.

    headrace up -- python examples/readmes.py --output out

Every document ends up in exactly one of results.jsonl and errors.jsonl. One answer is shown while it is being written,
with plain redis-py, from the channel that every job has.
"""

import argparse
import json
import os
import re
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import distributions
from itertools import chain
from pathlib import Path
from typing import Any

import redis
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from headrace import Client
from headrace.client import JobHandle
from headrace.contract.errors import HeadraceError

PROMPT = "Summarize in two sentences what this Python package is for.\n\n"
MARKUP = re.compile(r"\[?!\[[^\]]*\]\([^)]*\)(\]\([^)]*\))?|^\.\. .*$|<[^>]+>", re.MULTILINE)  # badges, mostly
LAST = {"completed", "failed", "cancelled", "expired"}


@dataclass(frozen=True)
class Document:
    id: str
    source: str
    text: str


def documents(limit: int, characters: int) -> list[Document]:
    """The long descriptions of the packages installed here, if they say enough to be summarized."""
    found = {}
    for package in distributions():
        text = " ".join(MARKUP.sub(" ", str(package.metadata.json.get("description", ""))).split())
        if len(text) >= 400:
            found[package.name.lower()] = Document(
                package.name.lower(), f"{package.name} {package.version}", text[:characters]
            )
    return [found[name] for name in sorted(found)][:limit]


def live_text(job: JobHandle, redis_url: str) -> Iterator[str]:
    """An answer as it is written, from the job's channel.

    Pub/sub keeps nothing for those who come late, so what was said before we listened is read from the job's events.
    """
    with redis.Redis.from_url(redis_url) as store, store.pubsub() as channel:
        channel.subscribe(f"hr:live:{job.id}")
        channel.get_message(timeout=5)  # the acknowledgement: nothing is missed from here on
        seen = 0
        while True:
            message = channel.get_message(timeout=1)
            heard = json.loads(message["data"]) if message else None
            if (heard and heard["seq"] > seen + 1) or (not heard and job.refresh().ended):
                for event in job.stream():
                    if heard and event.seq >= heard["seq"]:
                        break
                    if event.seq > seen:
                        yield getattr(event, "text", "")
                if not heard:
                    return
            if heard and heard["seq"] > seen:
                seen = heard["seq"]
                yield heard.get("text", "")
                if heard["type"] in LAST:
                    return


def show(job: JobHandle, document: Document, redis_url: str | None) -> float | None:
    """Print one answer while it is being written; when its first token came. It is gathered with all the others."""
    first_at = None
    print(f"{document.source}: ", end="", flush=True)
    try:
        for piece in live_text(job, redis_url) if redis_url else job.text_stream():
            first_at = first_at or (time.monotonic() if piece else None)
            print(piece, end="", flush=True)
    except (HeadraceError, redis.RedisError) as error:
        print(f"(the live view ended: {error})", end="")
    print("\n")
    return first_at


def row_of(document: Document, job: JobHandle) -> dict[str, Any]:
    try:
        result = job.wait()
    except HeadraceError as error:
        return failed(document, error) | {"job": job.id}
    usage = {"prompt_tokens": result.usage.prompt_tokens, "completion_tokens": result.usage.completion_tokens}
    return {
        "id": document.id,
        "source": document.source,
        "value": result.text.strip(),
        "usage": usage,
        "model": result.model,
        "job": job.id,
    }


def failed(document: Document, error: HeadraceError) -> dict[str, Any]:
    return {"id": document.id, "source": document.source, "error": {"code": error.code, "message": error.message}}


def submit_all(
    client: Client, todo: list[Document], options: argparse.Namespace
) -> tuple[dict[JobHandle, Document], list[dict[str, Any]]]:
    """The jobs, and a row for each document that was refused. The first one is in a hurry: somebody watches it."""
    jobs: dict[JobHandle, Document] = {}
    refused = []
    model = options.model or client.models()[0]
    for document in todo:
        messages = [{"role": "user", "content": PROMPT + document.text}]
        job_class = "batch" if jobs else "interactive"
        try:
            job = client.submit(
                model=model, messages=messages, max_tokens=options.max_tokens, temperature=0, job_class=job_class
            )
            jobs[job] = document
        except HeadraceError as error:
            refused.append(failed(document, error))
    return jobs, refused


def gather(client: Client, jobs: dict[JobHandle, Document], began: float) -> Iterator[dict[str, Any]]:
    """A row for each job, as they end."""
    columns = BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"), TimeRemainingColumn()
    with Progress(*columns, console=Console(stderr=True)) as progress:
        bar, tokens = progress.add_task("", total=len(jobs)), 0
        for job in client.as_completed(jobs):
            row = row_of(jobs[job], job)
            yield row
            tokens += row.get("usage", {}).get("completion_tokens", 0)
            progress.update(bar, advance=1, description=f"{tokens / (time.monotonic() - began):.0f} tokens/s, left")


def report(rows: list[dict[str, Any]], began: float, first_at: float | None, output: Path) -> None:
    spent = time.monotonic() - began
    done = [row["usage"] for row in rows if "usage" in row]
    tokens_in = sum(usage["prompt_tokens"] for usage in done)
    tokens_out = sum(usage["completion_tokens"] for usage in done)
    table = Table(show_header=False)
    table.add_row("documents", f"{len(done)} answered, {len(rows) - len(done)} failed")
    table.add_row("tokens", f"{tokens_in:,} in, {tokens_out:,} out, in {spent:.1f} s")
    table.add_row("speed", f"{tokens_out / spent:.1f} tokens/s out, {(tokens_in + tokens_out) / spent:.0f} in and out")
    table.add_row("first token after", f"{first_at - began:.2f} s" if first_at else "not seen")
    table.add_row("answers", str(output / "results.jsonl"))
    table.add_row("errors", str(output / "errors.jsonl"))
    Console().print(table)


def main() -> int:
    parser = argparse.ArgumentParser(description="Summarize the descriptions of the installed packages.")
    parser.add_argument("--output", type=Path, default=Path("."), help="folder of results.jsonl and errors.jsonl")
    parser.add_argument("--model", help="default: the first one that is served")
    parser.add_argument("--limit", type=int, default=24, help="most documents")
    parser.add_argument("--characters", type=int, default=2400, help="where a description is cut")
    parser.add_argument("--max-tokens", type=int, default=72)
    parser.add_argument("--redis-url", default=os.environ.get("HEADRACE_REDIS__URL"), help="for the live view")
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    results = (options.output / "results.jsonl").open("w", buffering=1)
    errors = (options.output / "errors.jsonl").open("w", buffering=1)
    with Client() as client, results, errors:
        began = time.monotonic()
        jobs, refused = submit_all(client, documents(options.limit, options.characters), options)
        watched = next(iter(jobs), None)
        first_at = show(watched, jobs[watched], options.redis_url) if watched else None
        rows = []
        for row in chain(refused, gather(client, jobs, began)):
            (errors if "error" in row else results).write(json.dumps(row, ensure_ascii=False) + "\n")
            rows.append(row)
    report(rows, began, first_at, options.output)
    return 3 if any("error" in row for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
