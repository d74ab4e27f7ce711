"""docs/09-guarantees.md names a test for what it promises: each of them is there, under that name."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
CITED = re.compile(r"`(?P<file>[\w/]+/[\w]+\.py)?(?:::(?P<test>\w+))?`")


def test_every_test_that_is_cited_is_there() -> None:
    page = (ROOT / "docs" / "09-guarantees.md").read_text(encoding="utf-8")
    file, cited = "", 0
    for found in CITED.finditer(page):
        if not found["file"] and not found["test"]:
            continue
        file, test = found["file"] or file, found["test"]
        source = (ROOT / "tests" / file).read_text(encoding="utf-8")
        assert test is None or f"def {test}(" in source, f"{file}::{test}"
        cited += 1
    assert cited > 15
