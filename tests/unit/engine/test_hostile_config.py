"""Knobs turned where none should be, and models that are no files: every one is refused by its name, none hangs."""

import math
import os
from pathlib import Path
from typing import Any

import pytest

from engine import Engine, EngineConfig, EngineConfigError, ModelFileError

WHOLE = (
    "page_size", "num_pages", "kv_budget_bytes", "max_num_seqs", "max_batched_tokens", "max_batched_keys",
    "max_context", "threads",
)  # fmt: skip
OPTIONAL = {"num_pages", "kv_budget_bytes", "max_context", "threads"}


@pytest.mark.parametrize("name", WHOLE)
@pytest.mark.parametrize(
    "value", [0, -1, math.nan, 1.5, "4", True, 10**400, 10**5000], ids=lambda value: str(type(value))
)
def test_a_knob_that_is_no_count_is_refused_by_its_name(name: str, value: Any) -> None:
    with pytest.raises(EngineConfigError, match=f"{name} must be a whole number from 1") as caught:
        EngineConfig("m.gguf", **{name: value})
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize("name", sorted(set(WHOLE) - OPTIONAL))
def test_a_knob_that_cannot_be_left_open_is_refused(name: str) -> None:
    with pytest.raises(EngineConfigError, match=name):
        EngineConfig("m.gguf", **{name: None})  # type: ignore[arg-type]


ODD: list[tuple[dict[str, Any], str]] = [
    ({"page_size": 48}, "power of two"),
    ({"threads": 1_000_000}, "from 1 to 1024"),
    ({"step_seconds": 0}, "step_seconds"),
    ({"step_seconds": math.nan}, "step_seconds"),
    ({"step_seconds": math.inf}, "step_seconds"),
    ({"step_seconds": "fast"}, "step_seconds"),
    ({"device": "tpu"}, "unknown device"),
    ({"backend": None}, "unknown backend"),
    ({"numerics": "float16"}, "unknown numerics"),
    ({"backend": "cpu", "device": "cuda"}, "leave one of them 'auto'"),
    ({"cache_dir": "here"}, "cache_dir must be a Path"),
    ({"cache_dir": Path("he\0re")}, "zero byte"),
    ({"model": None}, "model must be a path"),
    ({"model": b"m.gguf"}, "model must be a path"),
]


@pytest.mark.parametrize(("odd", "why"), ODD, ids=lambda value: str(value)[:40])
def test_what_cannot_be_is_refused_with_its_reason(odd: dict[str, Any], why: str) -> None:
    with pytest.raises(EngineConfigError, match=why):
        EngineConfig(**({"model": "m.gguf"} | odd))


@pytest.mark.parametrize("odd", [{"num_pages": 1 << 40}, {"page_size": 1 << 20, "num_pages": 1 << 20}], ids=str)
def test_more_memory_than_there_is_is_refused_before_any_is_taken(tiny: Path, odd: dict[str, Any]) -> None:
    with pytest.raises(EngineConfigError, match="memory"):
        Engine(EngineConfig(tiny, device="cpu", backend="torch", **odd))


def test_what_is_no_model_file_is_refused(tmp_path: Path) -> None:
    """A device would never end, a pipe never begin, and some names cannot be."""
    os.mkfifo(tmp_path / "pipe.gguf")
    (tmp_path / "empty.gguf").touch()
    (tmp_path / "loop.gguf").symlink_to(tmp_path / "loop.gguf")
    odd = ["/dev/zero", "/dev/null", "", "/", "a\0b", "x" * 5000, *map(str, tmp_path.iterdir()), str(tmp_path)]
    for model in odd:
        with pytest.raises(ModelFileError) as caught:
            Engine(EngineConfig(model, device="cpu", backend="torch"))
        assert len(str(caught.value)) < 1500
        assert caught.value.next_step
