"""Unpacks GGUF's K types: 256 values a block, in runs that have small whole-number scales of their own.

Source: the block structs of ggml-common.h (https://github.com/ggml-org/ggml).

    Q4_K  scale f16, min f16, 12 bytes of run scales, 128 bytes of nibbles
          runs of 32: value = (scale * run scale) * nibble - (min * run min)
    Q5_K  as Q4_K, with 32 bytes of high bits before the nibbles: bit r of byte i belongs to value i of run r
    Q6_K  128 bytes of nibbles, 64 bytes of high pairs, 16 x int8 run scales, scale f16
          runs of 16: value = (scale * run scale) * (6 bits - 32)

The 12 bytes hold eight 6-bit scales and eight 6-bit mins: bytes 0-3 and 4-7 the low six bits of the first four of each,
bytes 8-11 the nibbles of the last four, whose upper two bits are the upper two of bytes 0-7.
"""

from collections.abc import Callable
from typing import Final

import numpy as np
from numpy.typing import NDArray

from engine.loaders.unpacking.types import Bytes, Floats, half_at

_RUN_BYTES: Final = 12


def run_scales(blocks: Bytes) -> tuple[Bytes, Bytes]:
    """Blocks of Q4_K or Q5_K -> scales and mins of their runs.  # [blocks, 8] each, 0 to 63"""
    packed = blocks[:, 4 : 4 + _RUN_BYTES]
    low, middle, high = packed[:, 0:4], packed[:, 4:8], packed[:, 8:12]
    scales = np.concatenate([low & 63, (high & 15) | (low >> 6 << 4)], axis=1)
    mins = np.concatenate([middle & 63, (high >> 4) | (middle >> 6 << 4)], axis=1)
    return scales, mins


def _nibble_runs(packed: Bytes) -> NDArray[np.uint8]:
    """[blocks, 128] bytes -> [blocks, 8, 32]: 32 bytes hold one run in their low halves, the next in their high."""
    pairs = packed.reshape(-1, 4, 1, 32)
    return np.concatenate([pairs & 15, pairs >> 4], axis=2).reshape(-1, 8, 32)


def _scaled_runs(blocks: Bytes, quants: NDArray[np.uint8], out: Floats) -> None:
    """(scale * run scale) * quants - (min * run min); quants are [blocks, 8, 32]."""
    scales, mins = run_scales(blocks)
    runs = out.reshape(-1, 8, 32)
    np.multiply(quants, (half_at(blocks, 0) * scales)[:, :, None], out=runs)
    runs -= (half_at(blocks, 2) * mins)[:, :, None]


def _q4_k(blocks: Bytes, out: Floats) -> None:
    _scaled_runs(blocks, _nibble_runs(blocks[:, 16:]), out)


def _q5_k(blocks: Bytes, out: Floats) -> None:
    high: Bytes = blocks[:, 16:48].reshape(-1, 1, 32) >> np.arange(8, dtype=np.uint8).reshape(1, 8, 1) & np.uint8(1)
    _scaled_runs(blocks, _nibble_runs(blocks[:, 48:]) | high << np.uint8(4), out)


def _q6_k(blocks: Bytes, out: Floats) -> None:
    nibbles = blocks[:, 0:128].reshape(-1, 2, 1, 64)
    pairs = blocks[:, 128:192].reshape(-1, 2, 1, 32)
    low = np.concatenate([nibbles & 15, nibbles >> 4], axis=2).reshape(-1, 2, 4, 32)
    high = pairs >> np.array([0, 2, 4, 6], dtype=np.uint8).reshape(1, 1, 4, 1) & 3
    quants = (low | high << 4).view(np.int8) - np.int8(32)
    scales = np.ascontiguousarray(blocks[:, 192:208]).view(np.int8) * half_at(blocks, 208)
    np.multiply(quants.reshape(-1, 16, 16), scales[:, :, None], out=out.reshape(-1, 16, 16))


K_QUANTS: Final[dict[str, Callable[[Bytes, Floats], None]]] = {"Q4_K": _q4_k, "Q5_K": _q5_k, "Q6_K": _q6_k}
