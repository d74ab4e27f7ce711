"""Keyed Gumbel noise and the logarithm it needs: the bits of kernels/reference/gumbel.py."""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls, allow-untyped-decorators
from typing import Final

import triton
import triton.language as tl

from kernels.reference import gumbel as reference

_GOLDEN: Final = tl.constexpr(reference.GOLDEN)
_MIX_1: Final = tl.constexpr(reference.MIX_1)
_MIX_2: Final = tl.constexpr(reference.MIX_2)
_LN2_HIGH: Final = tl.constexpr(reference.LN2_HIGH)
_LN2_LOW: Final = tl.constexpr(reference.LN2_LOW)
_SQRT_HALF_BITS: Final = tl.constexpr(reference.SQRT_HALF_BITS)
_C4: Final = tl.constexpr(reference.LOG_SERIES[0])
_C3: Final = tl.constexpr(reference.LOG_SERIES[1])
_C2: Final = tl.constexpr(reference.LOG_SERIES[2])
_C1: Final = tl.constexpr(reference.LOG_SERIES[3])
_HALF_STEP: Final = tl.constexpr(2.0**-52)
_LAST: Final = tl.constexpr((1 << 52) - 1)
_NEAR_ONE: Final = tl.constexpr(3 << 50)


@triton.jit
def noise_stream(key, offset):
    """The key of one output position, from that of (seed, choice). uint64."""
    return _mix(key.to(tl.uint64) + offset.to(tl.uint64) * _GOLDEN)


@triton.jit
def gumbel(stream, token_ids):
    """Standard Gumbel noise for each token id, int32."""
    whole = (_mix(token_ids.to(tl.uint64) * _GOLDEN + stream) >> 12).to(tl.int64)
    below = (whole.to(tl.float32) + 0.5) * _HALF_STEP
    beyond = ((whole ^ _LAST).to(tl.float32) + 0.5) * _HALF_STEP
    near_one = -_series(tl.div_rn(-beyond, 2.0 - beyond))
    return -log(tl.where(whole >= _NEAR_ONE, near_one, -log(below)))


@triton.jit
def log(x):
    """Natural logarithm of positive, normal float32 numbers."""
    bits = x.to(tl.int32, bitcast=True)
    exponent = (bits - _SQRT_HALF_BITS) >> 23
    mantissa = (bits - (exponent << 23)).to(tl.float32, bitcast=True)
    series = _series(tl.div_rn(mantissa - 1.0, mantissa + 1.0))
    return exponent.to(tl.float32) * _LN2_HIGH + (series + exponent.to(tl.float32) * _LN2_LOW)


@triton.jit
def _series(f):
    square = f * f
    total = square * _C4 + _C3
    total = total * square + _C2
    total = total * square + _C1
    return f * 2.0 * (total * square + 1.0)


@triton.jit
def _mix(z):
    z = (z ^ (z >> 30)) * _MIX_1
    z = (z ^ (z >> 27)) * _MIX_2
    return z ^ (z >> 31)
