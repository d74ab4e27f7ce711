"""How rows become inputs of products and are multiplied, by policy; knows buffers and kernels, no order of layers.

"exact"  int8 by int8 in groups of 64 inputs, float32 between products, int8 pages
"bf16"   the same decoder in bfloat16, to compare with: what exactness costs is measured against it

A policy has one operand buffer, as wide as the widest product: each operand is used up before the next is made.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar, Final, Protocol

import torch
from torch import Tensor

from engine.cuda_backend.operations import Operations
from engine.cuda_backend.weights import Matrix
from kernels.ops import GROUP


@dataclass(frozen=True, slots=True)
class Operand:
    """Rows ready to be multiplied: `values` [rows, in], int8 with `scale` [rows, groups], or a float type without."""

    values: Tensor
    scale: Tensor | None = None


class Numerics(Protocol):
    """One policy on one device. `activations` is the type of what products give, `pages` that of keys and values."""

    name: ClassVar[str]
    activations: ClassVar[torch.dtype]
    pages: ClassVar[torch.dtype]

    def normed(self, stream: Tensor, weight: Tensor, eps: float) -> Operand: ...

    def taken(self, x: Tensor) -> Operand: ...

    def gated(self, gate_up: Tensor, activation: str) -> Operand: ...

    def multiply(
        self, x: Operand, matrix: Matrix, out: Tensor, bias: Tensor | None = None, residual: Tensor | None = None
    ) -> None: ...


class Exact:
    """For up to `rows` rows of at most `width` inputs."""

    name: ClassVar[str] = "exact"
    activations: ClassVar[torch.dtype] = torch.float32
    pages: ClassVar[torch.dtype] = torch.int8

    def __init__(self, operations: Operations, rows: int, width: int, device: torch.device) -> None:
        self._operations = operations
        self._values = torch.zeros(rows * width, dtype=torch.int8, device=device)
        self._scales = torch.zeros(rows * -(-width // GROUP), device=device)

    def normed(self, stream: Tensor, weight: Tensor, eps: float) -> Operand:
        out = self._operand(*stream.shape)
        self._operations.add_rms_norm_quantize(stream, None, weight, eps, GROUP, out.values, out.scale)
        return out

    def taken(self, x: Tensor) -> Operand:
        out = self._operand(*x.shape)
        self._operations.quantize_by_group(x, GROUP, out.values, out.scale)
        return out

    def gated(self, gate_up: Tensor, activation: str) -> Operand:
        out = self._operand(len(gate_up), gate_up.shape[1] // 2)
        self._operations.gated_quantize(gate_up, activation, GROUP, out.values, out.scale)
        return out

    def multiply(
        self, x: Operand, matrix: Matrix, out: Tensor, bias: Tensor | None = None, residual: Tensor | None = None
    ) -> None:
        self._operations.scaled_int8_matmul(
            x.values, x.scale, matrix.values, matrix.scale, GROUP, out, bias=bias, residual=residual
        )

    def _operand(self, rows: int, width: int) -> Operand:
        groups = -(-width // GROUP)
        return Operand(self._values[: rows * width].view(rows, width), self._scales[: rows * groups].view(rows, groups))


class Bfloat16:
    """For up to `rows` rows of at most `width` inputs. The residual stream stays float32."""

    name: ClassVar[str] = "bf16"
    activations: ClassVar[torch.dtype] = torch.bfloat16
    pages: ClassVar[torch.dtype] = torch.bfloat16

    def __init__(self, operations: Operations, rows: int, width: int, device: torch.device) -> None:
        self._operations = operations
        self._values = torch.zeros(rows * width, dtype=torch.bfloat16, device=device)

    def normed(self, stream: Tensor, weight: Tensor, eps: float) -> Operand:
        out = self._operand(*stream.shape)
        self._operations.add_rms_norm(stream, None, weight, eps, out.values)
        return out

    def taken(self, x: Tensor) -> Operand:
        return Operand(x)

    def gated(self, gate_up: Tensor, activation: str) -> Operand:
        out = self._operand(len(gate_up), gate_up.shape[1] // 2)
        self._operations.gated(gate_up, activation, out.values)
        return out

    def multiply(
        self, x: Operand, matrix: Matrix, out: Tensor, bias: Tensor | None = None, residual: Tensor | None = None
    ) -> None:
        self._operations.float_matmul(x.values, matrix.values, out, bias=bias, residual=residual)

    def _operand(self, rows: int, width: int) -> Operand:
        return Operand(self._values[: rows * width].view(rows, width))


NUMERICS: Final[Mapping[str, Callable[[Operations, int, int, torch.device], Numerics]]] = {
    "exact": Exact,
    "bf16": Bfloat16,
}
"""By name: of operations, for so many rows, of so many inputs at most, on a device."""
