"""How the command line speaks: data on standard output, progress on standard error. Knows terminals, no jobs."""

import json
import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from headrace.models.pull import Progress

_UNITS = ((86_400, "d"), (3_600, "h"), (60, "m"), (1, "s"))


def data(text: str) -> None:
    print(text, flush=True)


def json_data(value: Any) -> None:
    """One JSON document, one line."""
    data(json.dumps(value, ensure_ascii=False))


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def aside(text: str) -> None:
    """Like `say`, in a fainter voice where somebody looks."""
    say(f"\x1b[2m{text}\x1b[0m" if sys.stderr.isatty() and "NO_COLOR" not in os.environ else text)


def table(rows: Sequence[Sequence[str]]) -> None:
    """Rows in columns as wide as their widest cell; the first row is the heading."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        data("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def moment(milliseconds: int) -> str:
    """A point in time where the reader is, to the millisecond."""
    seconds, rest = divmod(milliseconds, 1000)
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds)) + f".{rest:03}"


def span(seconds: float) -> str:
    """An age in its largest unit: 5s, 12m, 3h, 2d. A clock that is behind makes it 0s."""
    for size, unit in _UNITS:
        if seconds >= size:
            return f"{int(seconds // size)}{unit}"
    return "0s"


@contextmanager
def pull_progress(name: str) -> Iterator[Progress]:
    """A bar on a terminal, one line for each stage elsewhere."""
    from rich import progress as bars  # late: it takes as long to import as all the rest of a verb
    from rich.console import Console

    console = Console(stderr=True)
    if not console.is_terminal:
        stages: set[str] = set()

        def line(stage: str, done: int, total: int) -> None:
            if stage not in stages:
                stages.add(stage)
                say(f"{name}: {stage}")

        yield line
        return
    columns = (
        bars.TextColumn("{task.description}"),
        bars.BarColumn(),
        bars.DownloadColumn(),
        bars.TransferSpeedColumn(),
    )
    with bars.Progress(*columns, console=console, transient=True) as progress:
        tasks: dict[str, Any] = {}

        def bar(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                tasks[stage] = progress.add_task(f"{name}: {stage}", total=total or None)
            progress.update(tasks[stage], completed=done)

        yield bar
