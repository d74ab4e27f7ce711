"""Keyed Gumbel noise and the logarithm it needs, in float32 from correctly rounded operations; see engine/noise.py.

The bits are those of the host's noise: SplitMix64's finaliser over key and token. Only the two logarithms are float32.
"""

from typing import Final

import torch
from torch import Tensor

GOLDEN: Final = 0x9E3779B97F4A7C15
MIX_1: Final = 0xBF58476D1CE4E5B9
MIX_2: Final = 0x94D049BB133111EB
# ln 2 in two parts: the product of the first with an exponent is exact.
LN2_HIGH: Final = 0.693359375
LN2_LOW: Final = -2.12194440054690583e-4
# The bits of sqrt(1/2): mantissas are taken from there to sqrt(2).
SQRT_HALF_BITS: Final = 0x3F3504F3
# log((1 + f) / (1 - f)) = 2 f (1 + f^2 / 3 + f^4 / 5 + ...), highest power first; |f| <= 0.172, the rest is below 1e-9.
LOG_SERIES: Final = (1.0 / 9.0, 1.0 / 7.0, 1.0 / 5.0, 1.0 / 3.0, 1.0)


def gumbel(key: int, offset: int, token_ids: Tensor) -> Tensor:
    """Standard Gumbel noise for each token, from the key of (seed, choice).  # float32 [tokens]"""
    hashed = _mix(_mix(_wide(key) + _wide(offset) * _signed(GOLDEN)) + token_ids * _signed(GOLDEN))
    whole = _shifted(hashed, 12)  # 52 bits
    # u = (whole + 1/2) / 2^52. Near 1 its distance from 1 has the bits that count, and float32 holds those.
    below = whole.float().add_(0.5).mul_(2.0**-52)
    beyond = ((1 << 52) - 1 - whole).float().add_(0.5).mul_(2.0**-52)
    near_one = whole >= 3 << 50
    return -log(torch.where(near_one, -_series(-beyond / (2.0 - beyond)), -log(below)))


def log(x: Tensor) -> Tensor:
    """Natural logarithm of positive, normal float32 numbers, right to about a unit in the last place."""
    bits = x.view(torch.int32)
    exponent = (bits - SQRT_HALF_BITS) >> 23
    mantissa = (bits - (exponent << 23)).view(torch.float32)
    series = _series((mantissa - 1.0) / (mantissa + 1.0))
    return exponent.float() * LN2_HIGH + (series + exponent.float() * LN2_LOW)


def _series(f: Tensor) -> Tensor:
    """log((1 + f) / (1 - f))"""
    square = f * f
    total = torch.full_like(square, LOG_SERIES[0])
    for coefficient in LOG_SERIES[1:]:
        total = total * square + coefficient
    return f * 2.0 * total


def _mix(z: Tensor) -> Tensor:
    z = (z ^ _shifted(z, 30)) * _signed(MIX_1)
    z = (z ^ _shifted(z, 27)) * _signed(MIX_2)
    return z ^ _shifted(z, 31)


def _shifted(z: Tensor, count: int) -> Tensor:
    """z >> count as of unsigned numbers: torch shifts the sign in."""
    return (z >> count) & ((1 << (64 - count)) - 1)


def _signed(bits: int) -> int:
    return bits - (1 << 64) if bits >> 63 else bits


def _wide(value: int) -> Tensor:
    return torch.tensor(_signed(value & ((1 << 64) - 1)), dtype=torch.int64)
