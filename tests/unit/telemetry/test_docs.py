"""The documents name every metric and every route's setting that they promise to. Knows the text of docs/ only."""

from pathlib import Path

from headrace.settings import Settings
from headrace.telemetry.metrics import WORKER_METRICS

OPERATIONS = (Path(__file__).parents[3] / "docs" / "02-operations.md").read_text("utf-8")


def test_docs_name_every_metric() -> None:
    assert not [name for name in WORKER_METRICS if f"`{name}`" not in OPERATIONS]


def test_docs_name_only_settings_that_exist() -> None:
    table = OPERATIONS.split("## Settings")[1].split("## Redis")[0]
    rows = [line.split("|")[1] for line in table.splitlines() if line.startswith("| `")]
    named = [part for row in rows for part in row.replace("`", "").replace(" ", "").split(",")]
    assert named
    for name in named:
        section, field = name.split(".")
        assert field in type(getattr(Settings(), section)).model_fields, name
