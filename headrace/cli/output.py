"""How the command line speaks: data on standard output, progress on standard error. Knows terminals, no jobs."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from headrace import pull


def data(text: str) -> None:
    print(text, flush=True)


def json_data(value: Any) -> None:
    """One JSON document, one line."""
    data(json.dumps(value, ensure_ascii=False))


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


@contextmanager
def pull_progress(name: str) -> Iterator[pull.Progress]:
    """A bar on a terminal, one line for each stage elsewhere."""
    console = Console(stderr=True)
    if not console.is_terminal:
        stages: set[str] = set()

        def line(stage: str, done: int, total: int) -> None:
            if stage not in stages:
                stages.add(stage)
                say(f"{name}: {stage}")

        yield line
        return
    columns = TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn()
    with Progress(*columns, console=console, transient=True) as progress:
        tasks: dict[str, Any] = {}

        def bar(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                tasks[stage] = progress.add_task(f"{name}: {stage}", total=total or None)
            progress.update(tasks[stage], completed=done)

        yield bar
