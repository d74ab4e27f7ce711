"""Linear layers, exact (int8 operands in groups of 64 inputs) and plain (float32); knows no model."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor
from torch.nn import functional

from kernels import ops
from kernels.reference.quantize import in_groups

GroupProduct: TypeAlias = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True, slots=True)
class ExactWeight:
    """Whole numbers `values` [groups, out, 64] (the last group filled up with zeros), a `scale` [out] for each output,
    and the product that their type is made for. `width` is the number of inputs."""

    values: Tensor
    scale: Tensor
    width: int
    product: GroupProduct


@dataclass(frozen=True, slots=True)
class PlainWeight:
    """float32 [out, in]."""

    values: Tensor


def int8_road(device: torch.device) -> Callable[[Tensor], ExactWeight]:
    """Weights as int8, for machines whose integer product is exact."""
    return _road(device, torch.int8, ops.int8_group_matmul)


def float_road(device: torch.device) -> Callable[[Tensor], ExactWeight]:
    """The same whole numbers kept as float32: four times the memory, exact on every machine."""
    return _road(device, torch.float32, ops.float_group_matmul)


def _road(device: torch.device, dtype: torch.dtype, product: GroupProduct) -> Callable[[Tensor], ExactWeight]:
    def make(values: Tensor) -> ExactWeight:
        whole, scale = ops.quantize_rows(values)
        grouped = in_groups(whole).transpose(0, 1).contiguous()  # [groups, out, 64]
        return ExactWeight(grouped.to(device, dtype), scale.squeeze(1).to(device), values.shape[1], product)

    return make


class ExactLinear:
    """y[r, o] = scale[o] * sum over groups g, ascending, of x_scale[r, g] * (xq[r, g] . wq[g, o]), + bias[o]"""

    def __init__(self, weight: ExactWeight, bias: Tensor | None = None) -> None:
        self._weight, self._bias = weight, bias

    def __call__(self, x: Tensor) -> Tensor:
        y = self._weight.product(*ops.quantize_groups(x), self._weight.values, self._weight.scale)
        return y if self._bias is None else y.add_(self._bias)


class PlainLinear:
    """y = x . w + bias in float32."""

    def __init__(self, weight: PlainWeight, bias: Tensor | None = None) -> None:
        self._values, self._bias = weight.values, bias

    def __call__(self, x: Tensor) -> Tensor:
        return functional.linear(x, self._values, self._bias)
