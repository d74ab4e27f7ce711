"""Compiled code is kept between starts, under a name for all of its sources; a start without torch."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from engine.cpu_backend.compiled_code import forget_damaged, forget_unused, keep_compiled_code

pytest.importorskip("numba")

PROGRAM = """
import sys
from engine import Engine, EngineConfig, SamplingParams

engine = Engine(EngineConfig(sys.argv[1], device="cpu", num_pages=8, threads=1))
print(engine.generate([[1, 2, 3]], SamplingParams(max_tokens=3, temperature=0))[0].token_ids)
print("torch" in sys.modules)
"""


def start(model: Path) -> str:
    command = [sys.executable, "-c", PROGRAM, str(model)]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=150).stdout


def kept(folder: Path) -> dict[str, int]:
    return {file.name: file.stat().st_mtime_ns for file in folder.rglob("*.nbi")}


def test_a_start_finds_what_an_earlier_one_compiled_and_needs_no_torch(tiny: Path) -> None:
    cache = Path.home() / ".cache" / "headrace" / "engine"
    folder = cache / f"compiled-{keep_compiled_code(cache)}"
    first = start(tiny)
    before = kept(folder)
    assert {name.split("-")[0] for name in before} >= {"decoder.forward", "decoder.logits", "sampling.sample_rows"}
    assert start(tiny) == first
    assert kept(folder) == before
    assert first.endswith("False\n")


def test_code_that_was_cut_off_is_forgotten(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    for name, data in {"a.nbi": b"", "deep/b.1.nbc": b"whole.cut", "deep/c.nbi": b"whole.", "d.txt": b""}.items():
        (tmp_path / name).write_bytes(data)
    forget_damaged(tmp_path)
    assert sorted(file.name for file in tmp_path.rglob("*.*")) == ["c.nbi", "d.txt"]
    forget_damaged(tmp_path / "nowhere")


def test_code_of_versions_that_nobody_starts_any_more_is_forgotten(tmp_path: Path) -> None:
    mine, other, old, stranger = (
        tmp_path / name for name in (*(f"compiled-{digit * 16}" for digit in "1a3"), "compiled-assets")
    )
    for folder in (mine, other, old, stranger):
        folder.mkdir()
    for folder in (mine, old, stranger):
        os.utime(folder, (0, 0))
    forget_unused(mine)
    forget_unused(mine)  # it was marked as used
    assert sorted(folder.name for folder in tmp_path.iterdir()) == [
        f"compiled-{'1' * 16}",
        f"compiled-{'a' * 16}",
        "compiled-assets",
    ]
