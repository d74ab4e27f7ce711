"""What the numerics digest names: anything that may change the bits of a token changes it, and nothing else."""

from pathlib import Path

import pytest

from engine import digest
from engine.digest import numerics_digest, sources_digest

IDENTITY = {"backend": "cpu", "numerics": "exact", "kernels": "k", "device": "avx512vnni", "numba": "1"}


@pytest.mark.parametrize("part", IDENTITY)
def test_every_part_counts(part: str) -> None:
    assert numerics_digest("r", IDENTITY) != numerics_digest("r", {**IDENTITY, part: "other"})
    assert numerics_digest("r", IDENTITY) == numerics_digest("r", dict(reversed(IDENTITY.items())))


def test_weights_and_own_formulas_count(monkeypatch: pytest.MonkeyPatch) -> None:
    before = numerics_digest("r", IDENTITY)
    assert before != numerics_digest("s", IDENTITY)
    monkeypatch.setattr(digest, "_own_sources", lambda: "another version")
    assert before != numerics_digest("r", IDENTITY)


def test_sources_are_names_and_contents(tmp_path: Path) -> None:
    (tmp_path / "kernels" / "cpu").mkdir(parents=True)
    file = tmp_path / "kernels" / "cpu" / "rows.py"
    file.write_text("y = x * 2")
    (tmp_path / "kernels" / "notes.txt").write_text("no formula")
    before = sources_digest([tmp_path / "kernels"])
    file.with_suffix(".pyc").write_text("compiled")
    assert sources_digest([tmp_path / "kernels"]) == before
    file.write_text("y = x * 3")
    changed = sources_digest([tmp_path / "kernels"])
    file.rename(file.with_name("norm.py"))
    assert len({before, changed, sources_digest([tmp_path / "kernels"])}) == 3


def test_both_packages_are_found() -> None:
    engine, kernels = Path(digest.__file__).parent, Path(digest.__file__).parents[1] / "kernels"
    assert digest._own_sources() == sources_digest([engine, kernels])
