"""Compiled code is kept between starts, under a name for all of its sources; a start without torch."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from engine import Engine, EngineConfig
from engine.cpu_backend.compiled_code import forget_damaged, forget_unused
from tests.unit.engine.cpu_backend.drawn_models import why_not

PROGRAM = """
import sys
from pathlib import Path
from engine import Engine, EngineConfig, SamplingParams

engine = Engine(EngineConfig(sys.argv[1], device="cpu", num_pages=8, threads=1, cache_dir=Path(sys.argv[2])))
print(engine.generate([[1, 2, 3]], SamplingParams(max_tokens=3, temperature=0))[0].token_ids)
print("torch" in sys.modules)
"""


def start(model: Path, cache: Path) -> str:
    command = [sys.executable, "-c", PROGRAM, str(model), str(cache)]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=150).stdout


def kept(folder: Path) -> dict[str, int]:
    return {file.name: file.stat().st_mtime_ns for file in folder.rglob("*.nbi")}


def compiled_by_this_session(tiny: Path, cache: Path) -> Path:
    """A folder of its own with what all tests compile: half a minute that need not be spent twice."""
    from kernels.cpu.compiling import kept_in

    Engine(EngineConfig(tiny, device="cpu", num_pages=8, threads=1))
    folder = cache / kept_in().name
    for file in kept_in().rglob("*.nb[ci]"):
        copy = folder / file.relative_to(kept_in())
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, copy)
    return folder


@pytest.mark.skipif(why_not() is not None, reason=f"the fused backend: {why_not()}")
def test_a_start_finds_what_an_earlier_one_compiled_and_needs_no_torch(tiny: Path, tmp_path: Path) -> None:
    folder = compiled_by_this_session(tiny, tmp_path)
    first = start(tiny, tmp_path)
    before = kept(folder)
    assert {name.split("-")[0] for name in before} >= {"decoder.forward", "decoder.logits", "sampling.sample_rows"}
    assert start(tiny, tmp_path) == first
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
