"""Exponential and logarithm made of correctly rounded operations; knows numbers only.

No library promises the bits of its `exp` and `log` over versions and SIMD widths. These are multiplications, additions,
divisions and roundings in a fixed order, so whoever writes them down again, in whatever language, gets the same bits.
"""

import math
from typing import Final

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]

GRID_BITS: Final = 40
GRID: Final = 1 << GRID_BITS
LOG2_E: Final = 1.4426950408889634
# ln 2 in two parts: the first has so many zeros at its end that its product with an exponent is exact.
LN2_HIGH: Final = float.fromhex("0x1.62e42feep-1")
LN2_LOW: Final = float.fromhex("0x1.a39ef35793c76p-33")
SQRT_HALF: Final = 0.7071067811865476
# Below this a weight is nothing on the grid.
FAINTEST: Final = -30.0
# 1 / n!, the highest power first: the rest of the series is less than a quarter of the grid's step.
EXP_SERIES: Final = tuple(1.0 / math.factorial(n) for n in range(10, -1, -1))
# 1 / (2n + 1), the highest power first: log((1 + f) / (1 - f)) = 2f (1 + f^2 / 3 + f^4 / 5 + ...).
LOG_SERIES: Final = tuple(1.0 / (2 * n + 1) for n in range(11, -1, -1))


def weights(gaps: Floats) -> Counts:
    """exp(gap) on a grid of 2^-40 for gaps of at most 0, as whole numbers: a sum of them has no order."""
    near = np.maximum(gaps, FAINTEST)
    exponents = np.rint(near * LOG2_E)
    rest = (near - exponents * LN2_HIGH) - exponents * LN2_LOW
    power = np.full_like(rest, EXP_SERIES[0])
    for coefficient in EXP_SERIES[1:]:
        power *= rest
        power += coefficient
    rounded: Counts = np.rint(np.ldexp(power, exponents.astype(np.int64) + GRID_BITS)).astype(np.int64)
    return rounded


def log(x: Floats) -> Floats:
    """Natural logarithm of positive, finite numbers, right to about the last bit."""
    mantissa, exponent = np.frexp(x)
    small = mantissa < SQRT_HALF
    mantissa, exponent = np.where(small, mantissa * 2.0, mantissa), exponent - small
    f = (mantissa - 1.0) / (mantissa + 1.0)
    square = f * f
    series = np.full_like(square, LOG_SERIES[0])
    for coefficient in LOG_SERIES[1:]:
        series = series * square + coefficient
    result: Floats = exponent * LN2_HIGH + (f * 2.0 * series + exponent * LN2_LOW)
    return result
