"""Each packed type, bit for bit, against the format's own package, and against a decoder of one element at a time."""

import struct
import tracemalloc
from collections.abc import Callable

import gguf
import numpy as np
import pytest

from engine.loaders.gguf import FORMATS
from engine.loaders.tensors import BlockFormat
from engine.loaders.unpacking import Bytes, all_finite, unpack

BLOCKS = 6

# Where each type keeps the upper bytes of its floats.
EXPONENTS: dict[str, tuple[int, ...]] = {
    "F32": (3,),
    "F16": (1,),
    "BF16": (1,),
    "Q4_0": (1,),
    "Q4_1": (1, 3),
    "Q5_0": (1,),
    "Q5_1": (1, 3),
    "Q8_0": (1,),
    "Q4_K": (1, 3),
    "Q5_K": (1, 3),
    "Q6_K": (209,),
}


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


@pytest.fixture(params=FORMATS.values(), ids=lambda layout: layout.name)
def layout(request: pytest.FixtureRequest) -> BlockFormat:
    assert isinstance(request.param, BlockFormat)
    return request.param


def random_blocks(layout: BlockFormat, count: int, seed: int = 0) -> Bytes:
    """Blocks of any bits whose scales and minima are finite.  # [count, block_bytes]"""
    blocks = np.random.default_rng(seed).integers(0, 256, (count, layout.block_bytes), dtype=np.uint8)
    for exponent in EXPONENTS[layout.name]:
        blocks[:, exponent] &= 0xBF  # its top bit off: no infinities
    return blocks


def test_unpacked_as_one_by_one(layout: BlockFormat) -> None:
    if layout.name not in ELEMENT:
        pytest.skip("of K types the next test knows all")
    blocks = random_blocks(layout, BLOCKS)
    expected = [ELEMENT[layout.name](block.tobytes(), index) for block in blocks for index in range(layout.block_size)]
    shape = (2, BLOCKS // 2 * layout.block_size)
    got = unpack(blocks.reshape(-1), layout, shape)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, np.array(expected).reshape(shape), rtol=1e-6, atol=1e-6)


def test_the_same_bits_as_the_formats_own_package(layout: BlockFormat) -> None:
    """More than a slab of them, and not a whole number of slabs."""
    count = (1 << 16) // layout.block_size * 2 + 3
    blocks = random_blocks(layout, count)
    theirs = gguf.quants.dequantize(blocks, gguf.GGMLQuantizationType[layout.name])
    ours = unpack(blocks.reshape(-1), layout, (count, layout.block_size))
    np.testing.assert_array_equal(ours.view(np.uint32), theirs.reshape(ours.shape).view(np.uint32))


def test_memory_beside_the_result_is_small(layout: BlockFormat) -> None:
    raw = random_blocks(layout, (1 << 21) // layout.block_size).reshape(-1)
    tracemalloc.start()
    values = unpack(raw, layout, (1 << 21,))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak - values.nbytes < 2 << 20


@pytest.mark.parametrize("odd", [np.inf, -np.inf, np.nan])
@pytest.mark.parametrize("place", [0, 70_000, -1])
def test_one_value_that_is_not_finite_is_found(odd: float, place: int) -> None:
    values = np.ones((1000, 131), dtype=np.float32)
    assert all_finite(values)
    values.reshape(-1)[place] = odd
    assert not all_finite(values)
