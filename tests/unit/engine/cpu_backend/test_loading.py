"""From where packed weights come at a start: from the file of an earlier one that was packed by the same sources."""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from engine.batch import PageLayout
from engine.cpu_backend import loading, packing
from engine.loaders import checkpoint, unpacking, weights
from engine.models import key_balance, shape
from tests.unit.engine.cpu_backend.drawn_models import CONFIG, CONTEXT, LLAMA, OWN_OUTPUT, why_not

pytestmark = pytest.mark.skipif(why_not() is not None, reason=f"the fused backend: {why_not()}")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Of starts that keep packed weights however few they are, and compiled code where it is already."""
    monkeypatch.setattr(loading, "_WORTH_KEEPING", 0)
    monkeypatch.setattr(loading, "keep_compiled_code", lambda _: "kernels")
    return tmp_path


def start(cache: Path) -> int:
    """The file that its weights are in, by its number."""
    config = replace(CONFIG, cache_dir=cache)
    loading.load_cpu_model(config, OWN_OUTPUT, LLAMA, "revision", PageLayout(6, 16), CONTEXT)
    (file,) = cache.glob("*.packed*")
    return file.stat().st_ino


def test_weights_are_packed_once_by_the_same_sources(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = start(cache)
    assert start(cache) == first
    monkeypatch.setattr(loading, "sources_digest", lambda folders: "another rounding")
    other = start(cache)
    assert other != first
    assert start(cache) == other


def test_another_numpy_packs_anew(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = start(cache)
    monkeypatch.setattr(np, "__version__", "another")
    assert start(cache) != first


def test_all_sources_that_make_packed_bytes_are_in_their_name(monkeypatch: pytest.MonkeyPatch) -> None:
    named: list[Path] = []

    def noted(folders: Iterable[Path]) -> str:
        named.extend(file for folder in folders for file in folder.rglob("*.py"))
        return "digest"

    monkeypatch.setattr(loading, "sources_digest", noted)
    assert loading._packed_name("revision")["packers"] == "digest"
    makers = (packing, key_balance, shape, checkpoint, weights, unpacking)
    assert {Path(str(maker.__file__)) for maker in makers} <= set(named)
