"""Gated activations over tiles of a row, with quantisation behind them or without."""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls, allow-untyped-decorators
import math
from typing import Final

import triton
import triton.language as tl
from torch import Tensor

from kernels.gpu.arithmetic import round_even
from kernels.gpu.quantize import quantized
from kernels.gpu.tiles import group_tile
from kernels.reference.activation import LOG2_E, LOWEST_EXPONENT

_LOG2_E: Final = tl.constexpr(LOG2_E)
_LOWEST_EXPONENT: Final = tl.constexpr(LOWEST_EXPONENT)
_GELU_SLOPE: Final = tl.constexpr(2.0 * math.sqrt(2.0 / math.pi) * LOG2_E)


@triton.jit
def exp2(x):
    """2^x for float32 x, clamped to [-100, 100]: the polynomial of the reference, term by term. NaN stays NaN."""
    x = tl.maximum(x, _LOWEST_EXPONENT, propagate_nan=tl.PropagateNan.ALL)
    x = tl.minimum(x, -_LOWEST_EXPONENT, propagate_nan=tl.PropagateNan.ALL)
    whole = round_even(x)
    fraction = x - whole
    power = fraction * 0.009570101276040077
    power = (power + 0.05591785907745361) * fraction
    power = (power + 0.240247443318367) * fraction
    power = (power + 0.6931217908859253) * fraction
    power = power + 0.9999992847442627
    exponent = tl.where(whole == whole, whole, 0.0).to(tl.int32)
    return power * ((exponent + 127) << 23).to(tl.float32, bitcast=True)


@triton.jit
def _gated(
    gate_up,
    out,
    out_scale,
    width: tl.constexpr,
    group: tl.constexpr,
    rows: tl.constexpr,
    cols: tl.constexpr,
    gelu: tl.constexpr,
    quantizes: tl.constexpr,
):
    """Program (row, tile): a tile is `rows` groups of `cols` columns, of which `group` are used."""
    row = tl.program_id(0).to(tl.int64)
    groups, within = tl.program_id(1) * rows + tl.arange(0, rows), tl.arange(0, cols)
    columns = groups[:, None] * group + within[None, :]
    inside = (within[None, :] < group) & (columns < width)
    source = gate_up + row * 2 * width + columns
    gate = tl.load(source, mask=inside, other=0.0).to(tl.float32)
    up = tl.load(source + width, mask=inside, other=0.0).to(tl.float32)
    exponent = (gate * gate * 0.044715 + 1.0) * gate * -_GELU_SLOPE if gelu else gate * -_LOG2_E
    below = exp2(exponent) + 1.0
    y = tl.div_rn(tl.full(below.shape, 1.0, tl.float32), below) * gate * up
    if quantizes:
        whole, scale = quantized(y)
        tl.store(out + row * width + columns, whole, mask=inside)
        count: tl.constexpr = (width + group - 1) // group
        tl.store(out_scale + row * count + groups, scale, mask=groups < count)
    else:
        tl.store(out + row * width + columns, y.to(out.dtype.element_ty), mask=inside)


def gated(gate_up: Tensor, activation: str, out: Tensor) -> None:
    _launch(gate_up, activation, 1024, out, None)


def gated_quantize(gate_up: Tensor, activation: str, group: int, out: Tensor, out_scale: Tensor) -> None:
    _launch(gate_up, activation, group, out, out_scale)


def _launch(gate_up: Tensor, activation: str, group: int, out: Tensor, out_scale: Tensor | None) -> None:
    assert activation in ("silu", "gelu_tanh")
    rows, width = out.shape
    tile = group_tile(width, group)
    _gated[rows, tile.count](
        gate_up,
        out,
        out if out_scale is None else out_scale,
        width,
        tile.group,
        tile.rows,
        tile.cols,
        activation == "gelu_tanh",
        out_scale is not None,
        num_warps=4,
        enable_fp_fusion=False,
    )
