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
COMMANDS = (
    "up",
    "gateway",
    "worker",
    "submit",
    "events",
    "cancel",
    "jobs",
    "jobs show",
    "chat",
    "config show",
    "config check",
    "doctor",
    "models pull",
    "models list",
    "models path",
    "models verify",
)
SAY_ALL = """
import sys
from headrace.cli.main import run

for command in sys.argv[1:]:
    assert run([*command.split(), "--help"]) == 0, command
    print(end="\\f")
"""


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
    for command, shown in zip(COMMANDS, _helps(), strict=True):
        lines = (line.rstrip() for line in shown.strip().splitlines())
        yield f"\n### headrace {command}\n\n```\n" + "\n".join(lines) + "\n```"


def _helps() -> list[str]:
    """What each command says to --help. One interpreter for all: importing takes longer than saying."""
    said = subprocess.run(
        [sys.executable, "-c", SAY_ALL, *COMMANDS],
        capture_output=True,
        text=True,
        check=True,
        env={"COLUMNS": "100", "PATH": "/usr/bin:/bin", "NO_COLOR": "1", "TERM": "dumb"},
    )
    return said.stdout.split("\f")[:-1]


if __name__ == "__main__":
    PAGE.write_text(page() + "\n", "utf-8")
