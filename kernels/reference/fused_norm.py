"""RMS norm fused with what stands before it (a residual sum) and behind it (quantisation); knows one row at a time."""

from torch import Tensor

from kernels.reference.grouping import quantize_by_group
from kernels.reference.norm import rms_norm


def add_rms_norm(x: Tensor, residual: Tensor | None, weight: Tensor, eps: float, out: Tensor) -> None:
    out.copy_(rms_norm(_summed(x, residual).float(), weight.float(), eps))


def add_rms_norm_quantize(
    x: Tensor, residual: Tensor | None, weight: Tensor, eps: float, group: int, out: Tensor, out_scale: Tensor
) -> None:
    quantize_by_group(rms_norm(_summed(x, residual).float(), weight.float(), eps), group, out, out_scale)


def _summed(x: Tensor, residual: Tensor | None) -> Tensor:
    """What is normalised is what is kept: the sum as rounded to the residual's type."""
    return x if residual is None else residual.copy_(residual.float() + x.float())
