"""Each packed type against a decoder that takes one element at a time, as the format's struct comments say."""

import struct
from collections.abc import Callable

import numpy as np
import pytest

from engine.loaders.dequant import dequantise
from engine.loaders.gguf import FORMATS

BLOCKS = 6


def half(block: bytes, at: int) -> float:
    (value,) = struct.unpack_from("<e", block, at)
    return float(value)


def nibble(block: bytes, start: int, index: int) -> int:
    byte = block[start + index % 16]
    return byte >> 4 if index >= 16 else byte & 15


def fifth(block: bytes, start: int, index: int) -> int:
    bits = int.from_bytes(block[start : start + 4], "little")
    return (bits >> index & 1) << 4


ELEMENT: dict[str, Callable[[bytes, int], float]] = {
    "F32": lambda block, index: struct.unpack("<f", block)[0],
    "F16": lambda block, index: half(block, 0),
    "BF16": lambda block, index: struct.unpack("<f", b"\0\0" + block)[0],
    "Q4_0": lambda block, index: half(block, 0) * (nibble(block, 2, index) - 8),
    "Q4_1": lambda block, index: half(block, 0) * nibble(block, 4, index) + half(block, 2),
    "Q5_0": lambda block, index: half(block, 0) * ((nibble(block, 6, index) | fifth(block, 2, index)) - 16),
    "Q5_1": lambda block, index: half(block, 0) * (nibble(block, 8, index) | fifth(block, 4, index)) + half(block, 2),
    "Q8_0": lambda block, index: half(block, 0) * struct.unpack_from("<b", block, 2 + index)[0],
}


def test_there_is_a_case_for_each_type() -> None:
    assert ELEMENT.keys() == {layout.name for layout in FORMATS.values()}


@pytest.mark.parametrize("layout", FORMATS.values(), ids=lambda layout: layout.name)
def test_unpacked_as_one_by_one(layout: object) -> None:
    assert isinstance(layout, type(FORMATS[0]))
    dice = np.random.default_rng(0)
    raw = dice.integers(0, 256, BLOCKS * layout.block_bytes, dtype=np.uint8)
    blocks = raw.reshape(BLOCKS, layout.block_bytes)
    if layout.name in ("F32", "F16", "BF16"):  # the exponent's top bit off: no infinities
        blocks[:, -1] &= 0xBF
    else:  # scales and minima around one
        for start in (1, 3) if layout.name in ("Q4_1", "Q5_1") else (1,):
            blocks[:, start] = 0x38 | blocks[:, start] & 0x83
    shape = (2, BLOCKS // 2 * layout.block_size)
    got = dequantise(raw, layout.name, layout.block_bytes, shape)
    expected = [ELEMENT[layout.name](block.tobytes(), index) for block in blocks for index in range(layout.block_size)]
    assert got.dtype == np.float32
    assert np.isfinite(got).all()
    np.testing.assert_allclose(got, np.array(expected).reshape(shape), rtol=1e-6, atol=1e-6)
