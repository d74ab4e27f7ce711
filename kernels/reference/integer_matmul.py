"""Products of int8 activations and weights in groups of 64 inputs, on integer units or in float32; knows no model.

Within a group the sum is one of whole numbers below 2^24, so its order is free: 64 * 127 * 127 = 1,032,256. The scaled
sums of the groups are float32 and are added one after the other, first group first. So both roads give the same bits
for any batch, tile or thread count, provided that nothing saturates (oneDNN without VNNI does).
"""

from collections.abc import Callable
from typing import Final, TypeAlias

import torch
from torch import Tensor
from torch.nn import functional

Product: TypeAlias = Callable[[Tensor, Tensor], Tensor]

# cuBLASLt refuses integer products of fewer than 17 rows.
_MIN_CUDA_ROWS: Final = 32
# Sums in flight: three passes over what still lies in a core's cache.
_TILE_ELEMENTS: Final = 1 << 17


def int8_group_matmul(x: Tensor, x_scale: Tensor, weight: Tensor, weight_scale: Tensor) -> Tensor:
    return _by_group(_int8_product, x, x_scale, weight, weight_scale)


def float_group_matmul(x: Tensor, x_scale: Tensor, weight: Tensor, weight_scale: Tensor) -> Tensor:
    return _by_group(functional.linear, x.float(), x_scale, weight, weight_scale)


def _by_group(product: Product, x: Tensor, x_scale: Tensor, weight: Tensor, weight_scale: Tensor) -> Tensor:
    rows, outputs = len(x), weight.shape[1]
    x, x_scale = x.transpose(0, 1).contiguous(), x_scale.t().unsqueeze(-1)  # [groups, rows, 64], [groups, rows, 1]
    out = torch.empty(rows, outputs, device=x.device)
    at_once = max(1, _TILE_ELEMENTS // outputs)
    for start in range(0, rows, at_once):
        part = slice(start, start + at_once)
        total = out[part].zero_()
        for group in range(len(weight)):
            total.add_(product(x[group, part], weight[group]).float().mul_(x_scale[group, part]))
    return out.mul_(weight_scale)


def _int8_product(x: Tensor, weight: Tensor) -> Tensor:
    """x int8 [rows, 64], weight int8 [out, 64] -> int32 [rows, out]."""
    rows = len(x)
    if x.is_cuda and rows < _MIN_CUDA_ROWS:
        x = functional.pad(x, (0, 0, 0, _MIN_CUDA_ROWS - rows))
    return torch._int_mm(x, weight.t())[:rows]
