"""Weights in the order of kernels/cpu."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from engine.cpu_backend.packing import GROUP, layout, pack, pack_rows, padded
from engine.loaders.checkpoint import Levels
from engine.models.shape import ModelShape, RotaryShape

pytest.importorskip("numba")
SHAPE = ModelShape(
    vocab_size=70,
    context_length=64,
    hidden_size=72,
    ffn_size=100,
    num_layers=2,
    num_heads=4,
    num_kv_heads=2,
    head_dim=18,
    rms_eps=1e-5,
    rotaries=(RotaryShape(1e4),),
    layer_rotary=(0, 0),
    layer_windows=(None, None),
    qkv_bias=True,
)


class Numbered:
    """A checkpoint whose every tensor is random, but the same each time."""

    def has(self, role: str, layer: int | None = None) -> bool:
        return role != "output"

    def take(self, role: str, shape: tuple[int, ...], layer: int | None = None) -> NDArray[np.float32]:
        seed = sum(map(ord, role)) * 100 + (layer or 0)
        values: NDArray[np.float32] = np.random.default_rng(seed).standard_normal(shape).astype(np.float32)
        return values

    def has_levels(self, role: str, layer: int | None = None) -> bool:
        return False

    def levels(self, role: str, shape: tuple[int, ...], layer: int | None = None) -> Levels:
        raise AssertionError(f"{role} has no levels")


def unpacked(tiles: NDArray[Any], scales: NDArray[Any]) -> NDArray[np.float32]:
    """[64 * tiles, in] from packed tiles, by the formula in kernels/cpu/matmul.py."""
    groups = tiles.shape[1] // GROUP**2
    bytes_ = tiles.reshape(len(tiles), groups, GROUP // 4, GROUP, 4).transpose(0, 3, 1, 2, 4)
    whole = bytes_.reshape(len(tiles) * GROUP, groups * GROUP).astype(np.float32) - 128
    values: NDArray[np.float32] = whole * scales[:, None]
    return values


def test_rows_come_back_within_half_a_step() -> None:
    values = Numbered().take("q", (130, 150))
    tiles, scales = np.zeros((3, 192 * GROUP), np.uint8), np.zeros(192, np.float32)
    pack_rows(values, tiles, scales)
    back = unpacked(tiles, scales)
    assert (np.abs(back[:130, :150] - values) <= scales[:130, None] * 0.5001).all()
    assert not back[130:].any()
    assert not back[:, 150:].any()


def test_every_head_is_padded_by_itself() -> None:
    arrays = {name: np.zeros(each.shape, each.dtype) for name, each in layout(SHAPE, tied=True).items()}
    pack(Numbered(), SHAPE, arrays)
    head = padded(SHAPE.head_dim)
    for layer in range(2):
        qkv = unpacked(arrays["qkv"][layer], arrays["qkv_scale"][layer]).reshape(8, head, -1)
        for name, first, count in (("q", 0, 4), ("k", 4, 2), ("v", 6, 2)):
            wanted = Numbered().take(name, (count * 18, 72), layer).reshape(count, 18, 72)
            np.testing.assert_allclose(qkv[first : first + count, :18, :72], wanted, atol=0.03)
            bias = arrays["qkv_bias"][layer].reshape(8, head)[first : first + count]
            assert (bias[:, :18].ravel() == Numbered().take(f"{name}_bias", (count * 18,), layer)).all()
        assert not qkv[:, 18:].any()
        o = unpacked(arrays["o"][layer], arrays["o_scale"][layer]).reshape(padded(72), 4, head)
        np.testing.assert_allclose(o[:72, :, :18], Numbered().take("o", (72, 72), layer).reshape(72, 4, 18), atol=0.03)
        assert not o[:, :, 18:].any()
        up = unpacked(arrays["gate_up"][layer], arrays["gate_up_scale"][layer])[padded(100) :]
        np.testing.assert_allclose(up[:100, :72], Numbered().take("up", (100, 72), layer), atol=0.03)
