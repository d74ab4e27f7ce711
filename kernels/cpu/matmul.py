"""int8 x int8 products over packed weights, in tiles of some rows and 64 outputs; knows no layer.

y[r, o] = w_scale[o] * sum over groups g of (x_scale[r, g] * sum over i in g of (x[r, i] w[o, i]))

Sums within a group are whole numbers; groups are added in ascending order, product and sum rounded apart. So a row's
bits depend neither on the number of rows in its tile nor on who computes it.

Weights are kept as unsigned w + 128, which VNNI wants of one factor; -128 * sum(x) of each group starts its sum.
    packed tile of 64 outputs   [groups, 16 quads of inputs, 64 outputs, 4 inputs]  bytes
"""

from typing import Any, Final

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils

from kernels.cpu.compiling import addressed, merged
from kernels.cpu.simd import (
    F32,
    FLOATS,
    I32,
    I64,
    INTS,
    call_address,
    dot,
    emit_prefetch,
    operation,
    pointer,
    splat,
    spread,
    store_floats,
)

GROUP: Final = 64
"""Inputs that share one scale of the activations; also the outputs of one tile."""
GROUP_BYTES: Final = GROUP * GROUP
"""Of a group of inputs of a tile."""
_QUADS: Final = GROUP // 4
_VECTORS: Final = GROUP // 16
_UNROLLED: Final = 4
_LINE: Final = 64
_PARTS: Final = _QUADS // _UNROLLED  # of a group
_ASKED_FOR: Final = _QUADS * _LINE  # bytes that a group asks memory for
_BLOCK: Final = 6  # rows of one tile: 24 sums and 4 vectors of weights stay in 32 registers


def _emit_tile(rows: int) -> Any:
    """LLVM for `rows` rows and one group of a tile, added to `out`; arguments as for `product_tile`."""

    def emit(b: Any, x: Any, scales: Any, starts: Any, weights: Any, out: Any, stride: Any, ahead: Any) -> None:
        sums = _registers(b, INTS, rows)
        beside = [b.mul(stride, I64(4 * r)) for r in range(rows)]
        for r in range(rows):
            start = _splat_from(b, b.add(starts, beside[r]), I32, INTS)
            for total in sums[r]:
                b.store(start, total)
        inputs = [b.add(x, b.mul(stride, I64(GROUP * r))) for r in range(rows)]
        with cgutils.for_range(b, I64(_PARTS), intp=I64) as part:
            soon = b.add(ahead, b.mul(part.index, I64(_UNROLLED * _LINE)))
            for step in range(_UNROLLED):
                emit_prefetch(b, b.add(soon, I64(step * _LINE)))
                quad = b.add(b.mul(part.index, I64(_UNROLLED)), I64(step))
                _add_quad(b, sums, inputs, weights, quad)
        for r in range(rows):
            scale = _splat_from(b, b.add(scales, beside[r]), F32, FLOATS)
            for v in range(_VECTORS):
                at = pointer(b, b.add(out, I64((r * _VECTORS + v) * _LINE)), FLOATS)
                part_sum = b.fmul(b.sitofp(b.load(sums[r][v]), FLOATS), scale)
                b.store(b.fadd(b.load(at, align=4), part_sum), at, align=4)

    return operation(types.void, (types.int64,) * 7, emit)


def _add_quad(b: Any, sums: list[list[Any]], inputs: list[Any], weights: Any, quad: Any) -> None:
    """sums [rows][vectors] += four inputs of each row . their weights for 64 outputs."""
    at = b.add(weights, b.mul(quad, I64(4 * GROUP)))
    w = [b.load(pointer(b, b.add(at, I64(_LINE * v)), INTS), align=4) for v in range(_VECTORS)]
    for own, row in zip(sums, inputs, strict=True):
        four = _splat_from(b, b.add(row, b.mul(quad, I64(4))), I32, INTS)
        for total, weight in zip(own, w, strict=True):
            b.store(dot(b, b.load(total), weight, four), total)


def _registers(builder: Any, kind: ir.Type, rows: int) -> list[list[Any]]:
    """Named places for vectors, which LLVM turns into registers."""
    return [[cgutils.alloca_once(builder, kind) for _ in range(_VECTORS)] for _ in range(rows)]


def _splat_from(builder: Any, address: Any, element: ir.Type, kind: ir.VectorType) -> Any:
    return spread(builder, builder.load(pointer(builder, address, element), align=1), kind)


_tile_1, _tile_2, _tile_3 = _emit_tile(1), _emit_tile(2), _emit_tile(3)
_tile_4, _tile_5, _tile_6 = _emit_tile(4), _emit_tile(5), _emit_tile(6)


@merged
def _add_group(rows: Any, x: Any, scales: Any, starts: Any, weights: Any, out: Any, stride: Any, ahead: Any) -> None:
    if rows == 6:
        _tile_6(x, scales, starts, weights, out, stride, ahead)
    elif rows == 5:
        _tile_5(x, scales, starts, weights, out, stride, ahead)
    elif rows == 4:
        _tile_4(x, scales, starts, weights, out, stride, ahead)
    elif rows == 3:
        _tile_3(x, scales, starts, weights, out, stride, ahead)
    elif rows == 2:
        _tile_2(x, scales, starts, weights, out, stride, ahead)
    else:
        _tile_1(x, scales, starts, weights, out, stride, ahead)


@addressed(10)
def product_tile(
    x: int, scales: int, starts: int, weights: int, out: int, rows: int, groups: int, stride: int, ahead: int, last: int
) -> None:
    """One packed tile of weights times `rows` rows -> out float32 [rows, 64], before the weights' scales.

    All but sizes are addresses: x int8 [rows, 64 * stride], scales float32 and starts int32 [rows, stride]; `groups`
    of them count. A group of weights is multiplied with all rows before the next: it stays in the nearest cache.
    Meanwhile memory is asked for what lies from `ahead` on, a line with every four inputs: a quarter of a tile with
    each block of rows, the next one with the next, but none beyond that which begins at `last`.
    """
    zero = splat(np.float32(0))
    for at in range(out, out + 4 * GROUP * rows, _LINE):
        store_floats(at, zero)
    for group in range(groups):
        soon = ahead + group * _ASKED_FOR
        for row in range(0, rows, _BLOCK):
            _add_group(
                min(_BLOCK, rows - row),
                x + GROUP * (row * stride + group),
                scales + 4 * (row * stride + group),
                starts + 4 * (row * stride + group),
                weights + GROUP_BYTES * group,
                out + 4 * GROUP * row,
                stride,
                min(soon + row // _BLOCK * groups * _ASKED_FOR, last + group * _ASKED_FOR),
            )


def product_of(x: int, scales: int, starts: int, weights: int, out: int, rows: int, groups: int) -> None:
    """`product_tile` for callers in Python."""
    product_tile.ctypes(x, scales, starts, weights, out, rows, groups, groups, weights, weights)


call_product = operation(types.void, (types.int64,) * 11, call_address)
"""`product_tile` by its address, and its arguments.

A compiled function that is called by name is compiled anew within each of its callers; these tiles are too
long for that.
"""
