"""int8 by int8 products with the scales of groups of inputs, bias and residual behind them; exact in any tiling.

A group's sum is int32 and has no order. The groups' scaled sums are float32 and are added first group first, multiply
and add apart, so neither path nor tile changes a bit, and the inputs cannot be split among programs. A row with a
single group is one int32 sum.
"""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls, allow-untyped-decorators
from dataclasses import dataclass
from typing import Final

import triton
import triton.language as tl
from torch import Tensor

from kernels.gpu.epilogue import finish

# Inputs of one step when there is a single group.
_LONG_STEP: Final = 128
# Rows up to which weights are multiplied without tensor cores, whose smallest tile has 16 rows.
_FEW_ROWS: Final = 4
# Steps of theirs whose weights are under way at a time: without a tensor core's product a loop has to ask for it.
_FEW_ROWS_STAGES: Final = tl.constexpr(6)


@dataclass(frozen=True, slots=True)
class _Tile:
    """Rows and outputs of one program. `columns` are few where rows are: then weights are all there is to read, and
    many programs read them."""

    rows: int
    columns: int
    warps: int
    stages: int


# By the most rows it serves. Starting points from bytes and shared memory, not from measurements.
_TILES: Final = {
    16: _Tile(16, 32, 4, 6),
    32: _Tile(32, 64, 4, 5),
    128: _Tile(64, 64, 4, 4),
}
_LARGEST: Final = _Tile(128, 128, 8, 4)


@triton.jit(do_not_specialize=["rows"])
def _by_tiles(
    x,
    x_scale,
    weight,
    weight_scale,
    bias,
    residual,
    out,
    rows,
    width: tl.constexpr,
    outputs: tl.constexpr,
    groups: tl.constexpr,
    step: tl.constexpr,
    lines: tl.constexpr,
    columns: tl.constexpr,
    biased: tl.constexpr,
    adds: tl.constexpr,
):
    """Program (output tile, row tile). With several groups a step is one group."""
    line = tl.program_id(1) * lines + tl.arange(0, lines)
    column = tl.program_id(0) * columns + tl.arange(0, columns)
    inputs = tl.arange(0, step)
    x_at = x + line.to(tl.int64)[:, None] * width + inputs[None, :]
    weight_at = weight + column.to(tl.int64)[None, :] * width + inputs[:, None]
    whole = tl.zeros((lines, columns), tl.int32)
    total = tl.zeros((lines, columns), tl.float32)
    for start in range(0, width, step):
        left = width - start
        xs = tl.load(x_at + start, mask=(line[:, None] < rows) & (inputs[None, :] < left), other=0)
        ws = tl.load(weight_at + start, mask=(column[None, :] < outputs) & (inputs[:, None] < left), other=0)
        if groups == 1:
            whole = tl.dot(xs, ws, whole, out_dtype=tl.int32)
        else:
            scale = tl.load(x_scale + line.to(tl.int64) * groups + start // step, mask=line < rows, other=0.0)
            total += tl.dot(xs, ws, out_dtype=tl.int32).to(tl.float32) * scale[:, None]
    if groups == 1:
        total = whole.to(tl.float32) * tl.load(x_scale + line, mask=line < rows, other=0.0)[:, None]
    total = total * tl.load(weight_scale + column, mask=column < outputs, other=0.0)[None, :]
    finish(total, bias, residual, out, line, column, rows, outputs, biased, adds)


@triton.jit
def _by_rows(
    x,
    x_scale,
    weight,
    weight_scale,
    bias,
    residual,
    out,
    rows: tl.constexpr,
    width: tl.constexpr,
    outputs: tl.constexpr,
    groups: tl.constexpr,
    step: tl.constexpr,
    lines: tl.constexpr,
    columns: tl.constexpr,
    biased: tl.constexpr,
    adds: tl.constexpr,
):
    """Program (output tile) for all of a few rows: each weight is read once and multiplied by every row's input."""
    line, inputs = tl.arange(0, lines), tl.arange(0, step)
    column = tl.program_id(0) * columns + tl.arange(0, columns)
    x_at = x + line[:, None] * width + inputs[None, :]
    weight_at = weight + column.to(tl.int64)[:, None] * width + inputs[None, :]
    whole = tl.zeros((lines, columns), tl.int32)
    total = tl.zeros((lines, columns), tl.float32)
    for start in tl.range(0, width, step, num_stages=_FEW_ROWS_STAGES):
        left = width - start
        xs = tl.load(x_at + start, mask=(line[:, None] < rows) & (inputs[None, :] < left), other=0)
        ws = tl.load(weight_at + start, mask=(column[:, None] < outputs) & (inputs[None, :] < left), other=0)
        part = tl.sum(xs.to(tl.int32)[:, None, :] * ws.to(tl.int32)[None, :, :], 2)
        if groups == 1:
            whole += part
        else:
            scale = tl.load(x_scale + line * groups + start // step, mask=line < rows, other=0.0)
            total += part.to(tl.float32) * scale[:, None]
    if groups == 1:
        total = whole.to(tl.float32) * tl.load(x_scale + line, mask=line < rows, other=0.0)[:, None]
    total = total * tl.load(weight_scale + column, mask=column < outputs, other=0.0)[None, :]
    finish(total, bias, residual, out, line, column, rows, outputs, biased, adds)


def scaled_int8_matmul(
    x: Tensor,
    x_scale: Tensor,
    weight: Tensor,
    weight_scale: Tensor,
    group: int,
    out: Tensor,
    bias: Tensor | None = None,
    residual: Tensor | None = None,
) -> None:
    rows, width = x.shape
    outputs, groups = weight.shape[0], x_scale.shape[1]
    assert groups == -(-width // min(group, width))
    assert groups == 1 or group in (32, 64, 128)
    step = _LONG_STEP if groups == 1 else group
    tensors = (x, x_scale, weight, weight_scale, x if bias is None else bias, x if residual is None else residual, out)
    options = {"biased": bias is not None, "adds": residual is not None, "enable_fp_fusion": False}
    if rows <= _FEW_ROWS:
        lines = triton.next_power_of_2(rows)
        _by_rows[triton.cdiv(outputs, 32),](
            *tensors, rows, width, outputs, groups, step, lines, 32, num_warps=4, **options
        )
        return
    tile = next((tile for most, tile in _TILES.items() if rows <= most), _LARGEST)
    _by_tiles[triton.cdiv(outputs, tile.columns), triton.cdiv(rows, tile.rows)](
        *tensors,
        rows,
        width,
        outputs,
        groups,
        step,
        tile.rows,
        tile.columns,
        num_warps=tile.warps,
        num_stages=tile.stages,
        **options,
    )
