"""Gated activations into buffers that are there already, plain and with quantisation behind them."""

from torch import Tensor

from kernels.reference.activation import gelu_mul, silu_mul
from kernels.reference.grouping import quantize_by_group

_ACTIVATIONS = {"silu": silu_mul, "gelu_tanh": gelu_mul}


def gated(gate_up: Tensor, activation: str, out: Tensor) -> None:
    out.copy_(_ACTIVATIONS[activation](gate_up.float()))


def gated_quantize(gate_up: Tensor, activation: str, group: int, out: Tensor, out_scale: Tensor) -> None:
    quantize_by_group(_ACTIVATIONS[activation](gate_up.float()), group, out, out_scale)
