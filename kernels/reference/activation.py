"""Powers of two, SiLU and GELU from correctly rounded operations only; knows no libm.

No library promises the bits of its `exp`: they may change with version, instruction set, device or SIMD width.
Multiplying, adding and rounding are pinned by IEEE 754, so this exponential has the same bits at every position and on
every device that keeps to it.
"""

import math
from collections.abc import Callable
from typing import Final

import torch
from torch import Tensor

LOG2_E: Final = math.log2(math.e)
# 2^f on [-1/2, 1/2] by relative minimax of degree 4: error below 2.6e-6, finer than int8 activations or 11-bit weights.
# (Constants as tensors: torch converts a Python number anew in every call.)
_COEFFICIENTS: Final = torch.tensor(
    [0.009570101276040077, 0.05591785907745361, 0.240247443318367, 0.6931217908859253, 0.9999992847442627]
).unbind()
_ONE: Final = torch.tensor(1.0)
_MINUS_LOG2_E: Final = torch.tensor(-LOG2_E)
_GELU_CUBE: Final = torch.tensor(0.044715)
_GELU_SLOPE: Final = torch.tensor(-2.0 * math.sqrt(2.0 / math.pi) * LOG2_E)
# Well inside the float32 range: a product with a small scale must not become subnormal, which CPUs do 100 times slower.
LOWEST_EXPONENT: Final = -100.0
_HIGHEST_EXPONENT: Final = 100.0
_EXPONENT_BIAS: Final = torch.tensor(127, dtype=torch.int32)
_MANTISSA_BITS: Final = torch.tensor(23, dtype=torch.int32)
# Rows at a time: some fifteen passes over what still lies in a core's cache.
_TILE_ELEMENTS: Final = 1 << 16


def exp2_(x: Tensor) -> Tensor:
    """2^x in place for float32 x, clamped to [-100, 100]. NaN stays NaN."""
    whole = x.clamp_(LOWEST_EXPONENT, _HIGHEST_EXPONENT).round()
    fraction = x.sub_(whole)
    power = fraction * _COEFFICIENTS[0]
    for coefficient in _COEFFICIENTS[1:-1]:
        power.add_(coefficient).mul_(fraction)
    power.add_(_COEFFICIENTS[-1])
    # A float whose mantissa is zero is a power of two: its bits are the biased exponent alone.
    scale = whole.to(torch.int32).add_(_EXPONENT_BIAS).bitwise_left_shift_(_MANTISSA_BITS).view(torch.float32)
    return power.mul_(scale)


def silu_mul(gate_up: Tensor) -> Tensor:
    return _gated(gate_up, lambda gate: gate * _MINUS_LOG2_E)


def gelu_mul(gate_up: Tensor) -> Tensor:
    return _gated(gate_up, lambda gate: ((gate * gate).mul_(_GELU_CUBE).add_(_ONE)).mul_(gate).mul_(_GELU_SLOPE))


def _gated(gate_up: Tensor, exponent: Callable[[Tensor], Tensor]) -> Tensor:
    """gate / (1 + 2^exponent(gate)) * up"""
    rows, width = gate_up.shape[0], gate_up.shape[1] // 2
    out = torch.empty(rows, width, device=gate_up.device)
    at_once = max(1, _TILE_ELEMENTS // width)
    for start in range(0, rows, at_once):
        part = slice(start, start + at_once)
        gate, up = gate_up[part, :width], gate_up[part, width:]
        torch.mul(exp2_(exponent(gate)).add_(_ONE).reciprocal_().mul_(gate), up, out=out[part])
    return out
