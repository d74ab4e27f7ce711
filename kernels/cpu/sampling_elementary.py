"""Exponential and logarithm of one number, with the bits of `engine.elementary`; knows numbers alone."""

from typing import Any, Final

import numpy as np
from numba import types
from numba.extending import intrinsic

from kernels.cpu.compiling import inlined

FAINTEST: Final = -30.0
"""Below this a weight is nothing on the grid."""
_GRID_BITS: Final = 40
_LOG2_E: Final = 1.4426950408889634
_LN2_HIGH: Final = float.fromhex("0x1.62e42feep-1")
_LN2_LOW: Final = float.fromhex("0x1.a39ef35793c76p-33")
_SQRT_HALF: Final = 0.7071067811865476
_EXP_SERIES: Final = tuple(1.0 / float(np.prod(np.arange(1.0, n + 1))) for n in range(10, -1, -1))
_LOG_SERIES: Final = tuple(1.0 / (2 * n + 1) for n in range(11, -1, -1))
# Added to a number below 2^51 this leaves its nearest whole number in the low bits.
_ROUNDER: Final = 1.5 * 2.0**52
_ROUNDER_BITS: Final = 0x4338000000000000


def _same_bits(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    return builder.bitcast(arguments[0], context.get_value_type(signature.return_type))


def _bits_of_number(typing_context: Any, number: Any) -> Any:
    """The bits of a float64 as an int64."""
    return types.int64(types.float64), _same_bits


def _number_of_bits(typing_context: Any, bits: Any) -> Any:
    """The float64 that has the bits of an int64."""
    return types.float64(types.int64), _same_bits


def _number_of_bits_32(typing_context: Any, bits: Any) -> Any:
    """The float32 that has the bits of an int32."""
    return types.float32(types.int32), _same_bits


bits_of: Any = intrinsic(_bits_of_number)
number_of: Any = intrinsic(_number_of_bits)
number_of_32: Any = intrinsic(_number_of_bits_32)


@inlined
def weight(gap: Any) -> Any:
    """exp(gap) on a grid of 2^-40; gap <= 0."""
    near = gap if gap > FAINTEST else FAINTEST
    shifted = near * _LOG2_E + _ROUNDER
    exponent = shifted - _ROUNDER
    r = (near - exponent * _LN2_HIGH) - exponent * _LN2_LOW
    c = _EXP_SERIES
    power = (((((c[0] * r + c[1]) * r + c[2]) * r + c[3]) * r + c[4]) * r + c[5]) * r
    power = (((((power + c[6]) * r + c[7]) * r + c[8]) * r + c[9]) * r) + c[10]
    scale = number_of((bits_of(shifted) + (1023 + _GRID_BITS)) << 52)
    return bits_of(power * scale + _ROUNDER) - _ROUNDER_BITS


@inlined
def log(x: Any) -> Any:
    """Natural logarithm of a normal, positive number."""
    bits = bits_of(x)
    exponent = float((bits >> 52) - 1022)
    mantissa = number_of((bits & 0x000FFFFFFFFFFFFF) | 0x3FE0000000000000)
    if mantissa < _SQRT_HALF:
        mantissa *= 2.0
        exponent -= 1.0
    f = (mantissa - 1.0) / (mantissa + 1.0)
    square = f * f
    c = _LOG_SERIES
    series = (((((c[0] * square + c[1]) * square + c[2]) * square + c[3]) * square + c[4]) * square + c[5]) * square
    series = (((((series + c[6]) * square + c[7]) * square + c[8]) * square + c[9]) * square + c[10]) * square + c[11]
    return exponent * _LN2_HIGH + (f * 2.0 * series + exponent * _LN2_LOW)
