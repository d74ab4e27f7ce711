"""The best token of each row, kept while the output layer is computed: its logits need not be written and read again.

Each thread keeps the best of the tiles that it took; the lowest id wins among equals, so who took which is the same.
"""

from typing import Any, Final, NamedTuple

import numpy as np
from numba import types

from kernels.cpu.compiling import compiled
from kernels.cpu.simd import (
    keep_below,
    larger,
    larger_int,
    load_float,
    load_floats,
    load_index,
    load_ints,
    magnitudes,
    max_lanes,
    max_magnitude,
    record_at,
    splat,
    splat_int,
    store_float,
    store_floats,
    store_index,
    store_ints,
)

NOT_FINITE: Final = -1
_LOWEST: Final = np.float32(-np.inf)
_NOTHING: Final = np.int32(0)
_VECTOR: Final = 64  # bytes


class Bests(NamedTuple):
    """Addresses; the first three hold a number for each thread and row, which join_best makes one for each row of."""

    values: int  # float32 [threads, rows]
    ids: int  # int64 [threads, rows]
    sizes: int  # 16 x int32 [threads, rows]: the largest |logit| of every lane, as bits
    tokens: int  # int64 [rows]


bests_at = record_at(Bests, types.int64)


@compiled
def forget_best(thread: Any, rows: Any, best: Any) -> None:
    """Before a thread's first tile."""
    for row in range(thread * rows, (thread + 1) * rows):
        store_float(best.values + 4 * row, _LOWEST)
        store_index(best.ids + 8 * row, np.int64(0))
        store_ints(best.sizes + _VECTOR * row, splat_int(_NOTHING))


@compiled
def keep_best(at: Any, first: Any, count: Any, product: Any, scale: Any, best: Any) -> None:
    """`count` of 64 logits of a row: product times scale, from token `first` on. `at`: thread * rows + row."""
    a, b = load_floats(product) * load_floats(scale), load_floats(product + 64) * load_floats(scale + 64)
    c, d = load_floats(product + 128) * load_floats(scale + 128), load_floats(product + 192) * load_floats(scale + 192)
    size = larger_int(larger_int(magnitudes(a), magnitudes(b)), larger_int(magnitudes(c), magnitudes(d)))
    sizes = best.sizes + _VECTOR * at
    store_ints(sizes, larger_int(load_ints(sizes), size))
    if count < 64:
        low = splat(_LOWEST)
        a, b = keep_below(count, a, low), keep_below(count - 16, b, low)
        c, d = keep_below(count - 32, c, low), keep_below(count - 48, d, low)
    top = max_lanes(larger(larger(a, b), larger(c, d)))
    if top >= load_float(best.values + 4 * at):
        store_floats(product, a)
        store_floats(product + 64, b)
        store_floats(product + 128, c)
        store_floats(product + 192, d)
        place = 0
        while place < count - 1 and load_float(product + 4 * place) != top:
            place += 1
        if top > load_float(best.values + 4 * at) or first + place < load_index(best.ids + 8 * at):
            store_float(best.values + 4 * at, top)
            store_index(best.ids + 8 * at, first + place)


@compiled
def join_best(threads: Any, rows: Any, best: Any) -> None:
    """`tokens`: the lowest id of the largest logit of each row, or NOT_FINITE."""
    for row in range(rows):
        token, top, size = np.int64(0), _LOWEST, splat_int(_NOTHING)
        for at in range(row, threads * rows, rows):
            value, own = load_float(best.values + 4 * at), load_index(best.ids + 8 * at)
            if value > top or (value == top and own < token):
                token, top = own, value
            size = larger_int(size, load_ints(best.sizes + _VECTOR * at))
        finite = max_magnitude(size) < np.float32(np.inf)  # false for NaN
        store_index(best.tokens + 8 * row, token if finite else np.int64(NOT_FINITE))
