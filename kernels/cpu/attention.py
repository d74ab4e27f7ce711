"""Paged attention over int8 keys and values, one row and one key/value head at a time; knows blocks and no requests.

    scores   q (int8) . k (int8), whole; times both scales
    weights  p = 2^(score - largest), summed in order of position
    values   in blocks of 16 positions: w = p * v_scale as 8 bits of the block's largest; w . v, whole; blocks in order

So a row's result depends on its own keys alone: not on its neighbours, nor on how its prompt was cut. Positions that
the row does not see weigh exactly zero.

A block holds 16 positions of one layer and one key/value head, in the order in which VNNI reads them:
    keys    [head_dim / 4, 16 positions, 4]   unsigned: k + 128        values  [4, head_dim, 4 positions]   signed
"""

from typing import Any, Final

import numpy as np

from kernels.cpu.compiling import merged
from kernels.cpu.rows import SMALLEST_MAX, exp2
from kernels.cpu.simd import (
    dot_bytes,
    dot_weights,
    keep_below,
    larger,
    load_floats,
    load_index,
    load_int,
    magnitudes,
    max_lanes,
    max_magnitude,
    nearest,
    prefetch,
    splat,
    splat_int,
    store_bytes,
    store_floats,
    sum_lanes,
    to_floats,
    to_ints,
    within,
)

BLOCK: Final = 16
"""Positions of one block: the lanes of a vector of scores."""
_UNSEEN: Final = np.float32(-1e30)
_WEIGHT_LEVELS: Final = np.float32(255.0)
_WEIGHT_STEP: Final = np.float32(1.0 / 255.0)
_ZERO: Final = np.float32(0.0)
_NOTHING: Final = np.int32(0)
_LOWEST: Final = np.float32(-100.0)


@merged
def _fetch(address: Any, nbytes: Any) -> None:
    """Blocks lie anywhere, so no processor guesses which comes next."""
    for at in range(address, address + nbytes, 64):
        prefetch(at)


@merged
def _score(query: Any, scale: Any, start: Any, keys: Any, key_scales: Any, head_dim: Any) -> Any:
    """One query head against one block, a lane for each position. Four sums at once, as each waits for its last."""
    a, b, c, d = splat_int(start), splat_int(_NOTHING), splat_int(_NOTHING), splat_int(_NOTHING)
    for i in range(0, head_dim, 16):
        at, q = keys + 16 * i, query + i
        a = dot_bytes(a, at, load_int(q))
        b = dot_bytes(b, at + 64, load_int(q + 4))
        c = dot_bytes(c, at + 128, load_int(q + 8))
        d = dot_bytes(d, at + 192, load_int(q + 12))
    return to_floats((a + b) + (c + d)) * (splat(scale) * load_floats(key_scales))


@merged
def _add_values(w: Any, values: Any, head_dim: Any, weights: Any, out: Any) -> None:
    """out float32 [head_dim] += weights of one block . its values. `weights` is room for 16 bytes."""
    most = max_magnitude(magnitudes(w))
    if not most <= SMALLEST_MAX:  # NaN goes on, so that its row is known to be broken
        store_bytes(weights, to_ints(nearest(w * splat(_WEIGHT_LEVELS / most))))
        step = splat(most * _WEIGHT_STEP)
        p, q, r, s = load_int(weights), load_int(weights + 4), load_int(weights + 8), load_int(weights + 12)
        for at in range(0, 4 * head_dim, 64):
            a = dot_weights(splat_int(_NOTHING), p, values + at)
            b = dot_weights(splat_int(_NOTHING), q, values + at + 4 * head_dim)
            a = dot_weights(a, r, values + at + 8 * head_dim)
            b = dot_weights(b, s, values + at + 12 * head_dim)
            store_floats(out + at, load_floats(out + at) + to_floats(a + b) * step)


@merged
def _only_seen(x: Any, otherwise: Any, first: Any, past: Any) -> Any:
    """Lanes from `first` to `past` of a block; 0 and 16 are all of it."""
    if past < BLOCK:
        x = keep_below(past, x, otherwise)
    if first > 0:
        x = keep_below(first, otherwise, x)
    return x


@merged
def attend(
    query: Any,
    scale: Any,
    start: Any,
    head_dim: Any,
    cache: Any,
    step: Any,
    table: Any,
    first: Any,
    last: Any,
    scores: Any,
    out: Any,
    cold: Any,
) -> None:
    """One query head of one row over positions `first` to `last` of its sequence -> float32 [head_dim] at `out`.

    query int8 [head_dim] at an address, with its scale (1 / sqrt(head_dim) and log2 e in it) and -128 times its sum;
    cache: addresses of this layer's and head's keys, key scales, values and value scales in block 0; those of the next
    block are step[0] bytes further for keys and values, step[1] for scales; table int64 [blocks]; scores: room for
    16 floats a block, and 16 more. `cold`: these blocks come from memory; a next head that shares them finds them near.
    """
    begin, end = first // BLOCK, last // BLOCK
    hidden, largest = splat(_UNSEEN), splat(_UNSEEN)
    for b in range(begin, end + 1):
        block = load_index(table + 8 * b)
        if cold:
            _fetch(cache[0] + load_index(table + 8 * min(b + 1, end)) * step[0], head_dim * BLOCK)
            _fetch(cache[2] + block * step[0], head_dim * BLOCK)
        found = _score(query, scale, start, cache[0] + block * step[0], cache[1] + block * step[1], head_dim)
        found = _only_seen(found, hidden, first - BLOCK * b, last + 1 - BLOCK * b)
        largest = larger(largest, found)
        store_floats(scores + 64 * (b - begin), found)
    most = splat(max_lanes(largest))
    total = zero = splat(_ZERO)
    weights = scores + 64 * (end + 1 - begin)
    for at in range(0, 4 * head_dim, 64):
        store_floats(out + at, zero)
    for b in range(begin, end + 1):
        block = load_index(table + 8 * b)
        p = exp2(within(load_floats(scores + 64 * (b - begin)) - most, _LOWEST, _ZERO))
        p = _only_seen(p, zero, first - BLOCK * b, last + 1 - BLOCK * b)
        total = total + p
        w = p * load_floats(cache[3] + block * step[1])
        _add_values(w, cache[2] + block * step[0], head_dim, weights, out)
    divisor = splat(sum_lanes(total))
    for at in range(0, 4 * head_dim, 64):
        store_floats(out + at, load_floats(out + at) / divisor)
