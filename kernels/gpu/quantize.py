"""Quantises rows in groups of inputs to int8, by itself or at the end of another kernel; the reference's bits.

Only maxima and correctly rounded operations are used. Divisions are `tl.div_rn`, since Triton's `/` is off by up to 2
units of float32; `enable_fp_fusion=False` keeps the compiler from contracting products and sums.
"""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls, allow-untyped-decorators
from typing import Final

import triton
import triton.language as tl
from torch import Tensor

from kernels.gpu.arithmetic import round_even
from kernels.gpu.tiles import group_tile
from kernels.reference.quantize import INT8_LEVELS, SMALLEST_MAX

_SMALLEST_MAX: Final = tl.constexpr(SMALLEST_MAX)
_LEVELS: Final = tl.constexpr(float(INT8_LEVELS))
_STEP: Final = tl.constexpr(1.0 / INT8_LEVELS)


@triton.jit
def largest_magnitude(x, axis: tl.constexpr):
    """max|x| along an axis, at least 1e-30. NaN wins: as bits it is larger than every number."""
    bits = tl.max(tl.abs(x).to(tl.int32, bitcast=True), axis)
    return tl.maximum(bits.to(tl.float32, bitcast=True), _SMALLEST_MAX, propagate_nan=tl.PropagateNan.ALL)


@triton.jit
def quantized(x):
    """x [groups, group] float32 -> int8 of the same shape, scale [groups]. A group with NaN has the scale NaN."""
    largest = largest_magnitude(x, 1)
    inverse = tl.div_rn(tl.full(largest.shape, _LEVELS, tl.float32), largest)
    return round_even(x * inverse[:, None]).to(tl.int8), largest * _STEP


@triton.jit
def _quantize_by_group(
    x, out, out_scale, width: tl.constexpr, group: tl.constexpr, rows: tl.constexpr, cols: tl.constexpr
):
    """Program (row, tile): a tile is `rows` groups of `cols` columns, of which `group` are used."""
    row = tl.program_id(0).to(tl.int64)
    groups, within = tl.program_id(1) * rows + tl.arange(0, rows), tl.arange(0, cols)
    columns = groups[:, None] * group + within[None, :]
    inside = (within[None, :] < group) & (columns < width)
    whole, scale = quantized(tl.load(x + row * width + columns, mask=inside, other=0.0).to(tl.float32))
    tl.store(out + row * width + columns, whole, mask=inside)
    count: tl.constexpr = (width + group - 1) // group
    tl.store(out_scale + row * count + groups, scale, mask=groups < count)


def quantize_by_group(x: Tensor, group: int, out: Tensor, out_scale: Tensor) -> None:
    rows, width = x.shape
    tile = group_tile(width, group)
    _quantize_by_group[rows, tile.count](
        x, out, out_scale, width, tile.group, tile.rows, tile.cols, num_warps=4, enable_fp_fusion=False
    )
