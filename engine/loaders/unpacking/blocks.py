"""Unpacks GGUF's types of 32 values a block.

Source: the block structs of ggml-common.h (https://github.com/ggml-org/ggml).

    Q4_0  scale f16, 16 x 2 nibbles                  value = scale * (nibble - 8)
    Q4_1  scale f16, min f16, 16 x 2 nibbles         value = scale * nibble + min
    Q5_0  scale f16, 32 high bits, 16 x 2 nibbles    value = scale * (5 bits - 16)
    Q5_1  scale f16, min f16, 32 high bits, nibbles  value = scale * 5 bits + min
    Q8_0  scale f16, 32 x int8                       value = scale * int8

Low nibbles are values 0-15 of a block, high nibbles 16-31.
"""

from collections.abc import Callable
from typing import Final

import numpy as np

from engine.loaders.unpacking.types import Bytes, Floats, half_at


def _nibbles(packed: Bytes, out: Floats) -> None:
    """[blocks, 16] bytes -> [blocks, 32] values from 0 to 15."""
    np.bitwise_and(packed, 15, out=out[:, :16], casting="unsafe")
    np.right_shift(packed, 4, out=out[:, 16:], casting="unsafe")


def _fifth_bits(packed: Bytes) -> Bytes:
    """[blocks, 4] bytes -> [blocks, 32] values, 0 or 16."""
    bits: Bytes = np.unpackbits(np.ascontiguousarray(packed), axis=1, bitorder="little")
    return bits << np.uint8(4)


def _q4_0(blocks: Bytes, out: Floats) -> None:
    _nibbles(blocks[:, 2:], out)
    out -= 8
    out *= half_at(blocks, 0)


def _q4_1(blocks: Bytes, out: Floats) -> None:
    _nibbles(blocks[:, 4:], out)
    out *= half_at(blocks, 0)
    out += half_at(blocks, 2)


def _q5_0(blocks: Bytes, out: Floats) -> None:
    _nibbles(blocks[:, 6:], out)
    out += _fifth_bits(blocks[:, 2:6])
    out -= 16
    out *= half_at(blocks, 0)


def _q5_1(blocks: Bytes, out: Floats) -> None:
    _nibbles(blocks[:, 8:], out)
    out += _fifth_bits(blocks[:, 4:8])
    out *= half_at(blocks, 0)
    out += half_at(blocks, 2)


def _q8_0(blocks: Bytes, out: Floats) -> None:
    np.multiply(np.ascontiguousarray(blocks[:, 2:]).view(np.int8), half_at(blocks, 0), out=out)


BLOCKS_OF_32: Final[dict[str, Callable[[Bytes, Floats], None]]] = {
    "Q4_0": _q4_0,
    "Q4_1": _q4_1,
    "Q5_0": _q5_0,
    "Q5_1": _q5_1,
    "Q8_0": _q8_0,
}
