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
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

import redis
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from headrace import Client
from headrace.client import JobHandle, JobResult
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
    """The long descriptions of the packages installed here that say enough to be summarized, the shortest first."""
    found = {}
    for package in distributions():
        text = " ".join(MARKUP.sub(" ", str(package.metadata.json.get("description", ""))).split())
        if len(text) >= 400:
            found[package.name.lower()] = Document(
                package.name.lower(), f"{package.name} {package.version}", text[:characters]
            )
    chosen = [found[name] for name in sorted(found)][:limit]
    return sorted(chosen, key=lambda document: len(document.text))


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


def row(document: Document, answer: JobResult | HeadraceError) -> dict[str, Any]:
    """One line of results.jsonl or of errors.jsonl."""
    head = {"id": document.id, "source": document.source}
    if isinstance(answer, HeadraceError):
        return head | {"error": {"code": answer.code, "message": answer.message}}
    usage = {"prompt_tokens": answer.usage.prompt_tokens, "completion_tokens": answer.usage.completion_tokens}
    return head | {"value": answer.text.strip(), "usage": usage, "model": answer.model, "job": answer.id}


def answers(
    client: Client, jobs: dict[JobHandle, Document], began: float
) -> Iterator[tuple[Document, JobResult | HeadraceError]]:
    """Each document with what became of it, as the jobs end, under a progress bar."""
    columns = BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"), TimeRemainingColumn()
    with Progress(*columns, console=Console(stderr=True)) as progress:
        bar, tokens = progress.add_task("", total=len(jobs)), 0
        for job in client.as_completed(jobs):
            try:
                result = job.wait()
                yield jobs[job], result
                tokens += result.usage.completion_tokens
            except HeadraceError as error:
                yield jobs[job], error
            progress.update(bar, advance=1, description=f"{tokens / (time.monotonic() - began):.0f} tokens/s, left")


def summarize(client: Client, options: argparse.Namespace, keep: Callable[[dict[str, Any]], None]) -> float | None:
    """Submit all, show the first answer live, keep a row for each document. Seconds to the first token."""
    began, jobs = time.monotonic(), dict[JobHandle, Document]()
    model = options.model or client.models()[0]
    for document in documents(options.limit, options.characters):
        try:
            job = client.submit(
                model=model,
                messages=[{"role": "user", "content": PROMPT + document.text}],
                max_tokens=options.max_tokens,
                temperature=0,
                job_class="batch" if jobs else "interactive",  # somebody watches the first one
            )
            jobs[job] = document
        except HeadraceError as error:
            keep(row(document, error))
    watched = next(iter(jobs), None)
    first_at = show(watched, jobs[watched], options.redis_url) if watched else None
    for document, answer in answers(client, jobs, began):
        keep(row(document, answer))
    return first_at - began if first_at else None


def report(rows: list[dict[str, Any]], spent: float, first_token_s: float | None, output: Path) -> None:
    done = [row["usage"] for row in rows if "usage" in row]
    tokens_in = sum(usage["prompt_tokens"] for usage in done)
    tokens_out = sum(usage["completion_tokens"] for usage in done)
    table = Table(show_header=False)
    table.add_row("documents", f"{len(done)} answered, {len(rows) - len(done)} failed")
    table.add_row("tokens", f"{tokens_in:,} in, {tokens_out:,} out, in {spent:.1f} s")
    table.add_row("speed", f"{tokens_out / spent:.1f} tokens/s out, {(tokens_in + tokens_out) / spent:.0f} in and out")
    table.add_row("first token after", f"{first_token_s:.2f} s" if first_token_s else "not seen")
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
    rows: list[dict[str, Any]] = []

    def keep(row: dict[str, Any]) -> None:
        (errors if "error" in row else results).write(json.dumps(row, ensure_ascii=False) + "\n")
        rows.append(row)

    began = time.monotonic()
    with Client() as client, results, errors:
        first_token_s = summarize(client, options, keep)
    report(rows, time.monotonic() - began, first_token_s, options.output)
    return 3 if any("error" in row for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
