"""Writes docs/03-reference.md from the code, so that settings, metrics and commands are never described from memory.

make docs          # or: python docs/generate.py
"""

import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from headrace.settings import PREFIX, Settings
from headrace.telemetry.metrics import METRICS

PAGE = Path(__file__).parent / "03-reference.md"
SAY_ALL = """
from typer.main import get_group
from headrace.cli.main import app, run

def names(group, context):
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        below = list(names(command, context)) if hasattr(command, "list_commands") else []
        if not below or command.invoke_without_command:
            yield name
        yield from (f"{name} {deeper}" for deeper in below)

for command in names(get_group(app), None):
    print(command, end="\\f")
    assert run([*command.split(), "--help"]) == 0, command
    print(end="\\f")
"""
"""Every command there is, from the tree itself. One interpreter for all: importing takes longer than saying."""


def page() -> str:
    """The whole page."""
    parts = (_settings(), _metrics(), _commands())
    return "# Reference\n\nWritten by `make docs` from the code.\n\n" + "\n".join("\n".join(part) for part in parts)


def _settings() -> Iterator[str]:
    yield f"## Settings\n\nEach is also `{PREFIX}<SECTION>__<FIELD>` in the environment.\n"
    yield "| setting | default | bounds |\n|---|---|---|"
    for section, info in Settings.model_fields.items():
        assert info.default_factory is not None
        for name, field in type(getattr(Settings(), section)).model_fields.items():
            default = field.default if field.default_factory is None else "(see 02-operations)"
            bounds = ", ".join(filter(None, map(_bound, field.metadata)))
            yield f"| `{section}.{name}` | {'' if default in (None, '') else f'`{default}`'} | {bounds} |"


def _bound(rule: object) -> str:
    for name, sign in (("gt", ">"), ("ge", "≥"), ("lt", "<"), ("le", "≤")):
        if hasattr(rule, name):
            return f"{sign} {getattr(rule, name)}"
    return ""


def _metrics() -> Iterator[str]:
    yield "\n## Metrics\n\nRows of a worker also carry the label `worker`.\n"
    yield "| metric | kind | of | labels | |\n|---|---|---|---|---|"
    for row in METRICS.values():
        labels = ", ".join(f"`{label}`" for label in row.labels)
        yield f"| `{row.name}` | {row.kind} | {row.of} | {labels} | {row.help} |"


def _commands() -> Iterable[str]:
    yield "\n## Commands"
    for command, shown in _helps():
        lines = (line.rstrip() for line in shown.strip().splitlines())
        yield f"\n### headrace {command}\n\n```\n" + "\n".join(lines) + "\n```"


def _helps() -> Iterator[tuple[str, str]]:
    """Each command, and what it says to --help."""
    said = subprocess.run(
        [sys.executable, "-c", SAY_ALL],
        capture_output=True,
        text=True,
        check=True,
        env={"COLUMNS": "100", "PATH": "/usr/bin:/bin", "NO_COLOR": "1", "TERM": "dumb"},
    )
    parts = said.stdout.split("\f")[:-1]
    return zip(parts[::2], parts[1::2], strict=True)


if __name__ == "__main__":
    PAGE.write_text(page() + "\n", "utf-8")
