"""The documents say what the code says. Knows the text of docs/ only."""

import importlib.util
import re
from pathlib import Path

from headrace.settings import Settings
from headrace.telemetry.metrics import METRICS

DOCS = Path(__file__).parents[3] / "docs"


def test_the_reference_is_what_the_code_says() -> None:
    """`make docs` was run: every setting, metric and command stands there as it is now."""
    spec = importlib.util.spec_from_file_location("generate", DOCS / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    generate = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generate)
    assert (DOCS / "03-reference.md").read_text("utf-8") == generate.page() + "\n"


def test_operations_names_only_settings_that_exist() -> None:
    table = (DOCS / "02-operations.md").read_text("utf-8").split("## Settings")[1].split("## Redis")[0]
    rows = [line.split("|")[1] for line in table.splitlines() if line.startswith("| `")]
    named = [part for row in rows for part in row.replace("`", "").replace(" ", "").split(",")]
    assert named
    for name in named:
        section, field = name.split(".")
        assert field in type(getattr(Settings(), section)).model_fields, name


def test_operations_explains_every_metric_and_none_that_is_not() -> None:
    section = (DOCS / "02-operations.md").read_text("utf-8").split("## Metrics")[1].split("\n## ")[0]
    rows = [line.split("|")[1] for line in section.splitlines() if line.startswith("| `")]
    explained = [name for row in rows for name in re.findall(r"`(\w+)`", row)]
    assert sorted(explained) == sorted(METRICS)
    assert set(re.findall(r"headrace_\w+", section)) == set(METRICS)
