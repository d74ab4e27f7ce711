"""Products with everything behind them (scales, bias, residual sum): int8 by groups of inputs, and float; no model.

A group's sum is one of whole numbers and so has no order; the groups' scaled sums are float32, added first group first.
"""

import torch
from torch import Tensor


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
    total = torch.zeros(out.shape, device=x.device)
    for index, start in enumerate(range(0, x.shape[1], group)):
        part = slice(start, start + group)
        # float64 holds these whole numbers exactly, and every device multiplies it.
        whole = x[:, part].double() @ weight[:, part].double().t()  # [rows, out]
        total += whole.float() * x_scale[:, index : index + 1]
    out.copy_(_finished(total * weight_scale, bias, residual))


def float_matmul(
    x: Tensor, weight: Tensor, out: Tensor, bias: Tensor | None = None, residual: Tensor | None = None
) -> None:
    out.copy_(_finished(x.float() @ weight.float().t(), bias, residual))


def _finished(y: Tensor, bias: Tensor | None, residual: Tensor | None) -> Tensor:
    if bias is not None:
        y = y + bias.float()
    return y if residual is None else y + residual.float()
