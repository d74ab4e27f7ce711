"""Linear layers without bias, exact (int8 operands) and plain (float32); knows no model."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from kernels import ops


@dataclass(frozen=True, slots=True)
class Weight:
    """A matrix as its policy keeps it: `values` [out, in]; exact ones also have a scale a row and their product."""

    values: Tensor
    scale: Tensor | None  # [out]
    product: Callable[[Tensor, Tensor], Tensor] | None


def int8_road(device: torch.device) -> Callable[[Tensor], Weight]:
    """Weights as int8, for machines whose integer product is exact."""

    def make(values: Tensor) -> Weight:
        whole, scale = ops.quantize_rows(values)
        return Weight(whole.to(device), scale.squeeze(1).to(device), ops.int8_matmul)

    return make


def float_chunk_road(device: torch.device) -> Callable[[Tensor], Weight]:
    """The same whole numbers kept as float32: four times the memory, exact on every machine."""

    def make(values: Tensor) -> Weight:
        whole, scale = ops.quantize_rows(values)
        return Weight(whole.to(device, torch.float32), scale.squeeze(1).to(device), ops.float_chunk_matmul)

    return make


class ExactLinear:
    """y = (xq . wq) * weight_scale * x_scale with int8 operands: per-row activations, per-output-channel weights."""

    def __init__(self, weight: Weight) -> None:
        assert weight.scale is not None
        assert weight.product is not None
        self._values, self._scale, self._product = weight.values, weight.scale, weight.product

    def __call__(self, x: Tensor) -> Tensor:
        whole, scale = ops.quantize_rows(x)
        return self._product(whole, self._values).float().mul_(self._scale).mul_(scale)


class PlainLinear:
    """y = x . w in float32."""

    def __init__(self, weight: Weight) -> None:
        self._values = weight.values

    def __call__(self, x: Tensor) -> Tensor:
        return functional.linear(x, self._values)
