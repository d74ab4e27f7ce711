"""Unpacks GGUF's tensor types to float32; knows block layouts, not what a tensor is for.

Source: the block structs of ggml-common.h (https://github.com/ggml-org/ggml). A block holds 32 values of one row:

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
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Bytes = NDArray[np.uint8]


def dequantise(raw: Bytes, format_name: str, block_bytes: int, shape: tuple[int, ...]) -> Floats:
    """Packed bytes [nbytes] -> float32 of `shape`. The caller has checked that the sizes agree (GGUFFile does)."""
    blocks = raw.reshape(-1, block_bytes)
    return _UNPACK[format_name](blocks).reshape(shape)


def _halves(blocks: Bytes, start: int) -> Floats:
    """The float16 at byte `start` of each block.  # [blocks, 1]"""
    return np.ascontiguousarray(blocks[:, start : start + 2]).view("<f2").astype(np.float32)


def _nibbles(packed: Bytes) -> Floats:
    """[blocks, 16] bytes -> [blocks, 32] values from 0 to 15."""
    values = np.empty((len(packed), 32), dtype=np.float32)
    np.bitwise_and(packed, 15, out=values[:, :16], casting="unsafe")
    np.right_shift(packed, 4, out=values[:, 16:], casting="unsafe")
    return values


def _fifth_bits(packed: Bytes) -> Floats:
    """[blocks, 4] bytes -> [blocks, 32] values, 0 or 16."""
    bits = np.unpackbits(np.ascontiguousarray(packed), axis=1, bitorder="little")
    return bits.astype(np.float32) * 16


def _f32(blocks: Bytes) -> Floats:
    return np.ascontiguousarray(blocks).view("<f4").astype(np.float32)


def _f16(blocks: Bytes) -> Floats:
    return np.ascontiguousarray(blocks).view("<f2").astype(np.float32)


def _bf16(blocks: Bytes) -> Floats:
    return (np.ascontiguousarray(blocks).view("<u2").astype(np.uint32) << 16).view(np.float32)


def _q4_0(blocks: Bytes) -> Floats:
    values = _nibbles(blocks[:, 2:])
    values -= 8
    values *= _halves(blocks, 0)
    return values


def _q4_1(blocks: Bytes) -> Floats:
    values = _nibbles(blocks[:, 4:])
    values *= _halves(blocks, 0)
    values += _halves(blocks, 2)
    return values


def _q5_0(blocks: Bytes) -> Floats:
    values = _nibbles(blocks[:, 6:])
    values += _fifth_bits(blocks[:, 2:6])
    values -= 16
    values *= _halves(blocks, 0)
    return values


def _q5_1(blocks: Bytes) -> Floats:
    values = _nibbles(blocks[:, 8:])
    values += _fifth_bits(blocks[:, 4:8])
    values *= _halves(blocks, 0)
    values += _halves(blocks, 2)
    return values


def _q8_0(blocks: Bytes) -> Floats:
    values = np.ascontiguousarray(blocks[:, 2:]).view(np.int8).astype(np.float32)
    values *= _halves(blocks, 0)
    return values


_UNPACK: Final[dict[str, Callable[[Bytes], Floats]]] = {
    "F32": _f32,
    "F16": _f16,
    "BF16": _bf16,
    "Q4_0": _q4_0,
    "Q4_1": _q4_1,
    "Q5_0": _q5_0,
    "Q5_1": _q5_1,
    "Q8_0": _q8_0,
}
