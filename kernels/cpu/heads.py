"""From a row's raw query, key or value head to what attention reads: scale, bias, norm, rotation, quantisation, block.

Knows one head of one row at a time, by addresses; widths are padded to multiples of 64 with zeros.
"""

from typing import Any, Final

import numpy as np

from kernels.cpu.compiling import compiled, merged
from kernels.cpu.rows import SMALLEST_MAX, inverse_rms
from kernels.cpu.simd import (
    larger_int,
    load_byte,
    load_float,
    load_floats,
    load_int,
    magnitudes,
    max_magnitude,
    nearest,
    splat,
    splat_int,
    store_byte,
    store_bytes,
    store_float,
    store_floats,
    store_int,
    sum_int_lanes,
    to_ints,
)

_LEVELS: Final = np.float32(127.0)
_STEP: Final = np.float32(1.0 / 127.0)
_ZERO: Final = np.float32(0.0)


@merged
def gather_head(tiles: Any, apart: Any, scales: Any, bias: Any, padded: Any, head: Any) -> None:
    """head float32 [padded] = product * its weights' scales, + bias where `bias` is an address and not 0.

    The product lies in tiles of 64, `apart` bytes from each other.
    """
    for i in range(0, padded, 16):
        value = load_floats(tiles + (i // 64) * apart + 4 * (i % 64)) * load_floats(scales + 4 * i)
        if bias:
            value = value + load_floats(bias + 4 * i)
        store_floats(head + 4 * i, value)


@merged
def norm_head(head: Any, weight: Any, width: Any, padded: Any, eps: Any) -> None:
    """RMS norm of a head of `width` numbers, in place."""
    inverse = splat(inverse_rms(head, width, padded, eps))
    for at in range(0, 4 * padded, 64):
        store_floats(head + at, load_floats(head + at) * inverse * load_floats(weight + at))


@merged
def rotate_head(head: Any, cos: Any, sin: Any, half: Any) -> None:
    """Pairs (i, i + half) of a head turned by the angles of its position; cos, sin float32 [half]."""
    whole = half - half % 16
    for at in range(0, 4 * whole, 64):
        low, high = load_floats(head + at), load_floats(head + 4 * half + at)
        c, s = load_floats(cos + at), load_floats(sin + at)
        store_floats(head + at, low * c - high * s)
        store_floats(head + 4 * half + at, high * c + low * s)
    for at in range(4 * whole, 4 * half, 4):
        one, other = load_float(head + at), load_float(head + 4 * half + at)
        store_float(head + at, one * load_float(cos + at) - other * load_float(sin + at))
        store_float(head + 4 * half + at, other * load_float(cos + at) + one * load_float(sin + at))


@compiled
def _largest(head: Any, padded: Any) -> Any:
    found = magnitudes(splat(SMALLEST_MAX))
    for at in range(head, head + 4 * padded, 64):
        found = larger_int(found, magnitudes(load_floats(at)))
    return max_magnitude(found)


@merged
def keep_query(head: Any, padded: Any, to: Any, scale_at: Any, start_at: Any, factor: Any) -> None:
    """A query as int8 at `to`, its scale times `factor`, and -128 times its sum."""
    largest = _largest(head, padded)
    levels, total = splat(_LEVELS / largest), splat_int(np.int32(0))
    for i in range(0, padded, 16):
        whole = to_ints(nearest(load_floats(head + 4 * i) * levels))
        store_bytes(to + i, whole)
        total = total + whole
    store_float(scale_at, largest * _STEP * factor)
    store_int(start_at, np.int32(-128) * sum_int_lanes(total))


@compiled
def _whole_head(head: Any, padded: Any, offset: Any, to: Any) -> Any:
    """A head as bytes round(x * 127 / max|x|) + offset, and its scale.

    One that is not finite fails its own request (its residual row stays so); its block must not pass that on to whoever
    gets it next.
    """
    largest = _largest(head, padded)
    scale = largest * _STEP
    if not np.isfinite(largest):
        largest, scale = np.float32(np.inf), _ZERO
    levels, shift = splat(_LEVELS / largest), splat_int(offset)
    for i in range(0, padded, 16):
        store_bytes(to + i, to_ints(nearest(load_floats(head + 4 * i) * levels)) + shift)
    return scale


@merged
def keep_key(head: Any, padded: Any, whole: Any, keys: Any, scales: Any, offset: Any) -> None:
    """A key into position `offset` of a block; `whole` is room for its bytes."""
    store_float(scales + 4 * offset, _whole_head(head, padded, np.int32(128), whole))
    for i in range(0, padded, 4):
        store_int(keys + 16 * i + 4 * offset, load_int(whole + i))


@merged
def keep_value(head: Any, padded: Any, whole: Any, values: Any, scales: Any, offset: Any) -> None:
    """A value into position `offset` of a block; `whole` is room for its bytes."""
    store_float(scales + 4 * offset, _whole_head(head, padded, np.int32(0), whole))
    to = values + (offset // 4) * padded * 4 + offset % 4
    for i in range(padded):
        store_byte(to + 4 * i, load_byte(whole + i))
