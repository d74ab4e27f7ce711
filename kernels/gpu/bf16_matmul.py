"""Float products whose rows do not depend on their number: one order of inputs, one instruction shape.

Float sums have an order, and on tensor cores it is the instruction's. So the tile is a function of the weight's shape
alone: 64 rows by 4 warps, whether 1 row is there or 1,000, and 64 inputs a step. On sm_90 that many rows and warps make
every product a warpgroup's m64 x columns x k16 (below 64 rows Triton would take mma.sync, which adds up in another
order); older devices have mma.sync m16n8k16 for every tile. Each output is summed by one program over all inputs, in
ascending steps, in float32.
"""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls, allow-untyped-decorators
from typing import Final

import triton
import triton.language as tl
from torch import Tensor

from kernels.gpu.arithmetic import interpreted
from kernels.gpu.epilogue import finish

_ROWS: Final = 64
_STEP: Final = 64
_WARPS: Final = 4
_STAGES: Final = 4
# Programs that one tile of rows should make, so that a step of few rows reads weights on all of a large device.
_ENOUGH_PROGRAMS: Final = 128


@triton.jit(do_not_specialize=["rows"])
def _float_matmul(
    x,
    weight,
    bias,
    residual,
    out,
    rows,
    width: tl.constexpr,
    outputs: tl.constexpr,
    step: tl.constexpr,
    lines: tl.constexpr,
    columns: tl.constexpr,
    biased: tl.constexpr,
    adds: tl.constexpr,
    widens: tl.constexpr,
):
    """Program (output tile, row tile)."""
    line = tl.program_id(1) * lines + tl.arange(0, lines)
    column = tl.program_id(0) * columns + tl.arange(0, columns)
    inputs = tl.arange(0, step)
    x_at = x + line.to(tl.int64)[:, None] * width + inputs[None, :]
    weight_at = weight + column.to(tl.int64)[None, :] * width + inputs[:, None]
    total = tl.zeros((lines, columns), tl.float32)
    for start in range(0, width, step):
        left = width - start
        xs = tl.load(x_at + start, mask=(line[:, None] < rows) & (inputs[None, :] < left), other=0.0)
        ws = tl.load(weight_at + start, mask=(column[None, :] < outputs) & (inputs[:, None] < left), other=0.0)
        if widens:
            xs, ws = xs.to(tl.float32), ws.to(tl.float32)
        total = tl.dot(xs, ws, total, input_precision="ieee")
    finish(total, bias, residual, out, line, column, rows, outputs, biased, adds)


def float_matmul(
    x: Tensor, weight: Tensor, out: Tensor, bias: Tensor | None = None, residual: Tensor | None = None
) -> None:
    rows, width = x.shape
    outputs = weight.shape[0]
    columns = columns_of(outputs)
    _float_matmul[triton.cdiv(outputs, columns), triton.cdiv(rows, _ROWS)](
        x,
        weight,
        x if bias is None else bias,
        x if residual is None else residual,
        out,
        rows,
        width,
        outputs,
        _STEP,
        _ROWS,
        columns,
        bias is not None,
        residual is not None,
        interpreted(),  # NumPy's products know no bfloat16: the interpreter would multiply its bits
        num_warps=_WARPS,
        num_stages=_STAGES,
        enable_fp_fusion=False,
    )


def columns_of(outputs: int) -> int:
    """The widest tile that still makes enough programs of one tile of rows. The number of rows has no say."""
    return next((columns for columns in (128, 64) if outputs >= columns * _ENOUGH_PROGRAMS), 32)
