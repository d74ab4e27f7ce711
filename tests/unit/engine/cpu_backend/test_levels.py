"""Weights that stay in the four bits of their file: the same model as their int8, in fewer bytes."""

import zlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.unit.engine.cpu_backend.drawn_models import CONFIG, CONTEXT, LLAMA, asked, rows_of, why_not

if why_not() is not None:
    pytest.skip(f"the fused backend: {why_not()}", allow_module_level=True)

from engine.batch import PageLayout
from engine.cpu_backend import loading, self_test
from engine.cpu_backend.loading import load_cpu_model
from engine.cpu_backend.packing import kept_as_levels, layout
from engine.loaders.checkpoint import Levels
from engine.loaders.gguf import FORMATS
from engine.loaders.tensors import TensorInfo
from engine.loaders.weights import WeightFile, WeightLayout
from engine.models.shape import ModelShape
from kernels.cpu.levels import unpacked_to

SHAPE = replace(LLAMA, head_dim=64, num_heads=3, num_kv_heads=1, hidden_size=128, ffn_size=192, vocab_size=128)
PAGES = PageLayout(9, 16)
RUN = 32


@dataclass(frozen=True, slots=True)
class OnLevels:
    """A Checkpoint of weights on 16 levels a run. Each row's largest weight is 127 of its units, and levels are whole
    units apart, so that their int8 is known without any rounding."""

    says_so: bool

    def has(self, role: str, layer: int | None = None) -> bool:
        return True

    def take(self, role: str, shape: tuple[int, ...], layer: int | None = None) -> NDArray[np.float32]:
        if role.endswith("norm"):
            return np.ones(shape, np.float32)
        step, lowest, numbers, unit = self._draw(role, shape, layer)
        weights = (np.repeat(lowest, RUN, axis=1) + np.repeat(step, RUN, axis=1) * numbers) * unit
        return np.asarray(weights, dtype=np.float32)

    def has_levels(self, role: str, layer: int | None = None) -> bool:
        return self.says_so

    def levels(self, role: str, shape: tuple[int, ...], layer: int | None = None) -> Levels:
        step, lowest, _, unit = self._draw(role, shape, layer)
        return Levels((step * unit).astype(np.float32), (lowest * unit).astype(np.float32))

    @staticmethod
    def _draw(role: str, shape: tuple[int, ...], layer: int | None) -> tuple[NDArray[Any], ...]:
        random = np.random.default_rng(zlib.crc32(f"{role}{layer}".encode()))
        runs = (shape[0], shape[1] // RUN)
        numbers = random.integers(0, 16, shape)
        step, lowest = random.integers(-7, 8, runs), random.integers(-20, 21, runs)
        step[:, 0], lowest[:, 0], numbers[:, 0] = 8, 7, 15  # the largest: 7 + 8 * 15 = 127
        return step, lowest, numbers, 2.0 ** random.integers(-9, -7, (shape[0], 1))


def hidden_of(checkpoint: OnLevels, shape: ModelShape, threads: int = 1) -> NDArray[np.float32]:
    """Of a text in steps of a few rows and of many."""
    model = load_cpu_model(replace(CONFIG, threads=threads), checkpoint, shape, "levels", PAGES, CONTEXT)
    return rows_of(model, asked(1, 70, range(1, 6)), (5, 1, 13, 31), PAGES.size)


def test_a_model_on_levels_gives_the_bits_of_its_int8() -> None:
    kept = kept_as_levels(OnLevels(says_so=True), SHAPE)
    assert kept == {"qkv", "o", "gate_up", "down"}
    expected = hidden_of(OnLevels(says_so=False), SHAPE)
    assert np.isfinite(expected).all()
    assert np.array_equal(hidden_of(OnLevels(says_so=True), SHAPE), expected)
    assert np.array_equal(hidden_of(OnLevels(says_so=True), SHAPE, threads=2), expected)


def test_a_large_model_on_levels_has_no_bytes_beside_them(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = hidden_of(OnLevels(says_so=True), SHAPE)
    monkeypatch.setattr(loading, "SMALL_MODEL", 0)
    assert np.array_equal(hidden_of(OnLevels(says_so=True), SHAPE), expected)


def test_heads_of_several_tiles_find_theirs() -> None:
    shape = replace(SHAPE, head_dim=128, num_heads=2)
    assert np.array_equal(hidden_of(OnLevels(says_so=True), shape), hidden_of(OnLevels(says_so=False), shape))


def test_levels_take_five_bits_a_weight() -> None:
    levels, whole = (layout(SHAPE, tied=False, levels=kept) for kept in (frozenset({"down"}), frozenset()))
    assert levels["down_levels"].nbytes * 8 == whole["down"].nbytes * 5
    assert "down" not in levels
    assert levels["o"] == whole["o"]


@pytest.mark.parametrize(
    "odd", [replace(SHAPE, hidden_size=72), replace(SHAPE, head_dim=18), replace(SHAPE, ffn_size=100)]
)
def test_padded_widths_are_kept_as_int8(odd: ModelShape) -> None:
    assert kept_as_levels(OnLevels(says_so=True), odd) == frozenset()


def test_unpacking_that_rounds_otherwise_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    assert self_test.levels_are_exact()

    def all_but_the_last_group(packed: int, out: int, groups: int) -> None:
        unpacked_to(packed, out, groups - 1)

    monkeypatch.setattr(self_test, "unpacked_to", all_but_the_last_group)
    assert not self_test.levels_are_exact()


@dataclass(frozen=True, slots=True)
class OneTensor:
    """A container of one tensor, of random blocks with finite scales."""

    info: TensorInfo

    @property
    def tensors(self) -> Mapping[str, TensorInfo]:
        return {self.info.name: self.info}

    def raw(self, name: str) -> NDArray[np.uint8]:
        blocks = np.random.default_rng(3).integers(0, 256, self.info.nbytes, dtype=np.uint8)
        blocks.reshape(-1, self.info.format.block_bytes)[:, (1, 3)] &= 0xBF  # of the halves' exponents
        return blocks


@pytest.mark.parametrize("role", ["q", "o"])
@pytest.mark.parametrize("name", ["Q4_0", "Q4_1", "Q4_K"])
def test_levels_of_a_file_are_those_of_its_weights(name: str, role: str) -> None:
    """In the rows in which they are handed out: those of queries change places."""
    shape, kind = (16, 512), next(each for each in FORMATS.values() if each.name == name)
    blocks = shape[0] * shape[1] // kind.block_size
    tensor = TensorInfo("x", shape, kind, 0, blocks * kind.block_bytes)
    kept = WeightLayout({"q": "x", "o": "x"}, interleaved=True)
    file = WeightFile(OneTensor(tensor), kept, Path("none"), head_dim=8, own_output=False)
    assert file.has_levels(role)
    levels, values = file.levels(role, shape), file.take(role, shape)
    step, lowest = (np.repeat(each, RUN, axis=1).astype(np.float64) for each in (levels.step, levels.lowest))
    numbers = np.rint((values - lowest) / np.where(step == 0, 1, step)).clip(0, 15)
    np.testing.assert_allclose(lowest + numbers * step, values, rtol=1e-5, atol=1e-6 * np.abs(lowest).max())


def test_other_types_have_no_levels() -> None:
    kind = next(each for each in FORMATS.values() if each.name == "Q8_0")
    file = WeightFile(
        OneTensor(TensorInfo("x", (1, 32), kind, 0, 34)), WeightLayout({"q": "x"}), Path("none"), head_dim=8,
        own_output=False,
    )  # fmt: skip
    assert not file.has_levels("q")
    assert not file.has_levels("k")
