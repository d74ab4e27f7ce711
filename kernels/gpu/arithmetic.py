"""Rounding, division and powers of two that have the same bits on every device; pieces that kernels are made of.

Launch kernels that use these with `enable_fp_fusion=False`: a multiply and an add that the compiler contracts into one
rounding give other bits than the reference, and perhaps others at each tile size.
"""

# mypy: allow-untyped-defs, allow-untyped-calls, allow-untyped-decorators
from typing import Final

import triton
import triton.language as tl

from kernels.reference.paged_attention import EXP2_COEFFICIENTS, LOWEST_EXPONENT

# At 1.5 * 2^23 the distance of float32 numbers is 1, so adding it rounds to whole numbers, halves to even.
_ROUNDER: Final = tl.constexpr(12582912.0)
_LOWEST_EXPONENT: Final = tl.constexpr(LOWEST_EXPONENT)
_C1: Final = tl.constexpr(EXP2_COEFFICIENTS[0])
_C2: Final = tl.constexpr(EXP2_COEFFICIENTS[1])
_C3: Final = tl.constexpr(EXP2_COEFFICIENTS[2])
_C4: Final = tl.constexpr(EXP2_COEFFICIENTS[3])
_C5: Final = tl.constexpr(EXP2_COEFFICIENTS[4])


def interpreted() -> bool:
    """Whether kernels run in Triton's interpreter, whose dot products are NumPy's and know no bfloat16."""
    return bool(triton.knobs.runtime.interpret)


@triton.jit
def round_even(x):
    """Whole float32 nearest to x, halves to even, for |x| <= 2^22."""
    return (x + _ROUNDER) - _ROUNDER


@triton.jit
def exp2(x):
    """2^x for float32 x up to 100; 2^-100 stands for all below. Source: kernels/reference/paged_attention.py."""
    x = tl.maximum(x, _LOWEST_EXPONENT)
    whole = round_even(x)
    fraction = x - whole
    power = fraction * _C5
    power = (power + _C4) * fraction
    power = (power + _C3) * fraction
    power = (power + _C2) * fraction
    power = (power + _C1) * fraction
    scale = ((whole.to(tl.int32) + 127) << 23).to(tl.float32, bitcast=True)
    return (power + 1.0) * scale


@triton.jit
def finite_or_zero(x):
    """x where it is finite, else 0."""
    return tl.where(tl.abs(x) < float("inf"), x, 0.0)
