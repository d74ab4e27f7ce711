"""RMS norm of a row in one pass, with the residual sum before it and the quantisation behind it.

The sum of squares is one of whole numbers (see kernels/reference/norm.py), here in int64: its order is free, so any
number of warps gives the bits of the reference.
"""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls, allow-untyped-decorators
import triton
import triton.language as tl
from torch import Tensor

from kernels.gpu.arithmetic import round_even
from kernels.gpu.quantize import largest_magnitude, quantized
from kernels.gpu.tiles import whole_row
from kernels.reference.norm import grid_steps


@triton.jit
def _add_rms_norm(
    x,
    residual,
    weight,
    out,
    out_scale,
    eps: tl.constexpr,  # a constant keeps its float64 bits; as an argument it would be float32
    steps: tl.constexpr,
    width: tl.constexpr,
    group: tl.constexpr,
    rows: tl.constexpr,
    cols: tl.constexpr,
    adds: tl.constexpr,
    quantizes: tl.constexpr,
):
    """Program (row): the row as `rows` groups of `cols` columns, of which `group` are used."""
    row = tl.program_id(0).to(tl.int64)
    groups, within = tl.arange(0, rows), tl.arange(0, cols)
    columns = groups[:, None] * group + within[None, :]
    inside = (within[None, :] < group) & (columns < width)
    values = tl.load(x + row * width + columns, mask=inside, other=0.0).to(tl.float32)
    if adds:
        before = tl.load(residual + row * width + columns, mask=inside, other=0.0).to(tl.float32)
        kept = (before + values).to(residual.dtype.element_ty)
        tl.store(residual + row * width + columns, kept, mask=inside)
        values = kept.to(tl.float32)
    gain = tl.load(weight + columns, mask=inside, other=0.0).to(tl.float32)
    normed = values * _inverse_rms(values, eps, steps, width) * gain
    if quantizes:
        whole, scale = quantized(normed)
        tl.store(out + row * width + columns, whole, mask=inside)
        count: tl.constexpr = (width + group - 1) // group
        tl.store(out_scale + row * count + groups, scale, mask=groups < count)
    else:
        tl.store(out + row * width + columns, normed.to(out.dtype.element_ty), mask=inside)


@triton.jit
def _inverse_rms(values, eps: tl.constexpr, steps: tl.constexpr, width: tl.constexpr):
    """1 / sqrt(mean of squares + eps), the mean taken on a grid of max|x| / steps."""
    largest = largest_magnitude(largest_magnitude(values, 1), 0)
    on_grid = round_even(values * tl.div_rn(tl.full(largest.shape, steps, tl.float32), largest)).to(tl.int64)
    total = tl.sum(tl.sum(on_grid * on_grid, 1), 0).to(tl.float64)
    step = largest.to(tl.float64) / steps
    mean = total * step * step / width
    return (1.0 / tl.sqrt(mean + eps)).to(tl.float32)


def add_rms_norm(x: Tensor, residual: Tensor | None, weight: Tensor, eps: float, out: Tensor) -> None:
    _launch(x, residual, weight, eps, x.shape[1], out, None)


def add_rms_norm_quantize(
    x: Tensor, residual: Tensor | None, weight: Tensor, eps: float, group: int, out: Tensor, out_scale: Tensor
) -> None:
    _launch(x, residual, weight, eps, group, out, out_scale)


def _launch(
    x: Tensor, residual: Tensor | None, weight: Tensor, eps: float, group: int, out: Tensor, out_scale: Tensor | None
) -> None:
    rows, width = x.shape
    tile = whole_row(width, group)
    _add_rms_norm[rows,](
        x,
        x if residual is None else residual,
        weight,
        out,
        out if out_scale is None else out_scale,
        eps,
        grid_steps(width),
        width,
        tile.group,
        tile.rows,
        tile.cols,
        residual is not None,
        out_scale is not None,
        num_warps=4 if width <= 4096 else 8,
        enable_fp_fusion=False,
    )
