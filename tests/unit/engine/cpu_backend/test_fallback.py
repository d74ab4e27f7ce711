"""Where the fused backend cannot be trusted or cannot run, the portable one computes, says so in the log, and the
digest names another arithmetic; who asked for the fused one by name is told why not."""

import logging
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from engine import Engine, EngineConfig, EngineConfigError, SamplingParams
from tests.unit.engine.cpu_backend.drawn_models import why_not

llvmlite = pytest.importorskip("llvmlite")
where_it_runs = pytest.mark.skipif(why_not() is not None, reason="the fused backend does not run here")

NOT_HERE = (None, "numba is not installed", "this CPU has no AVX-512 VNNI")
PROMPT, GREEDY = [7, 8, 9], SamplingParams(max_tokens=6, temperature=0.0, ignore_eos=True)
Floats = NDArray[np.float32]
Product = Callable[..., Floats]


def config(model: Path, backend: str, **knobs: object) -> EngineConfig:
    return replace(EngineConfig(model, device="cpu", backend=backend, num_pages=8, threads=1), **knobs)  # type: ignore[arg-type]


def one_output_wrong(right: Product) -> Product:
    """By one in its last place."""

    def products(*arguments: NDArray[np.generic]) -> Floats:
        made = right(*arguments)
        made[-1, 63] = np.nextafter(made[-1, 63], np.float32(np.inf))
        return made

    return products


def many_rows_wrong(right: Product) -> Product:
    def products(*arguments: NDArray[np.generic]) -> Floats:
        made = right(*arguments)
        return made * np.float32(1 + (len(made) == 13))

    return products


def test_only_a_missing_part_keeps_the_backend_from_running() -> None:
    """On a machine that has them all, tests must not be skipped because products came out wrong."""
    assert why_not() in NOT_HERE


@where_it_runs
@pytest.mark.parametrize("wrong", [one_output_wrong, many_rows_wrong])
def test_wrong_products_leave_the_model_to_the_portable_backend(
    tiny: Path, wrong: Callable[[Product], Product], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    trusted, portable = Engine(config(tiny, "auto")), Engine(config(tiny, "torch"))
    assert not caplog.records
    from engine.cpu_backend import self_test  # compiles, where it can, what other CPUs have no instructions for

    monkeypatch.setattr(self_test, "_products", wrong(self_test._products))
    assert_portable(Engine(config(tiny, "auto")), portable, caplog, "its int8 products are not exact")
    assert portable.digest != trusted.digest
    with pytest.raises(
        EngineConfigError, match="products are not exact on this machine; use backend 'auto' or 'torch'"
    ):
        Engine(config(tiny, "cpu"))


@where_it_runs
@pytest.mark.parametrize(
    ("knobs", "why"), [({"page_size": 8}, "pages of a multiple of 16"), ({"numerics": "reference"}, "'reference'")]
)
def test_what_the_fused_backend_lacks_the_portable_one_has(
    tiny: Path, knobs: dict[str, object], why: str, caplog: pytest.LogCaptureFixture
) -> None:
    assert_portable(Engine(config(tiny, "auto", **knobs)), Engine(config(tiny, "torch", **knobs)), caplog, why)
    with pytest.raises(EngineConfigError, match=why):
        Engine(config(tiny, "cpu", **knobs))


@pytest.mark.parametrize("features", [{}, {"avx512vnni": False, "avx2": True}])
def test_a_cpu_without_its_instructions_gets_the_portable_backend(
    tiny: Path, features: dict[str, bool], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(llvmlite.binding, "get_host_cpu_features", lambda: features)
    assert_portable(Engine(config(tiny, "auto")), Engine(config(tiny, "torch")), caplog, "no AVX-512 VNNI")


def test_on_a_cpu_without_its_instructions_its_parts_are_imported_all_the_same(tmp_path: Path) -> None:
    """Whoever imports one by mistake gets no engine of it, but LLVM must not end the process."""
    program = """
import llvmlite.binding as llvm

features = llvm.get_host_cpu_features()
features.update({name: False for name in features if name.startswith("avx512")})
llvm.get_host_cpu_features = lambda: features
import engine.cpu_backend.model, engine.cpu_backend.self_test
print("imported")
"""
    where = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path)}
    ended = subprocess.run([sys.executable, "-c", program], env=where, capture_output=True, text=True, timeout=60)
    assert ended.stdout == "imported\n", ended.stderr


def assert_portable(fallen: Engine, portable: Engine, caplog: pytest.LogCaptureFixture, why: str) -> None:
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert why in caplog.text
    assert fallen.digest == portable.digest
    assert fallen._loaded.model.identity["backend"] == "torch"
    assert fallen.generate([PROMPT], GREEDY) == portable.generate([PROMPT], GREEDY)
