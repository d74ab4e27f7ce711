"""What happens to whole rows between products: RMS norm, quantisation in groups of 64, gated activations.

One row at a time, in one fixed order of lanes, so a row's bits are its own. Widths are multiples of 64; what a model
does not fill is zero and stays zero.
"""

import math
from typing import Any, Final

import numpy as np

from kernels.cpu.compiling import compiled
from kernels.cpu.matmul import GROUP
from kernels.cpu.simd import (
    larger_int,
    load_floats,
    magnitudes,
    max_magnitude,
    nearest,
    power_of_two,
    splat,
    store_bytes,
    store_float,
    store_floats,
    store_int,
    sum_int_lanes,
    sum_lanes,
    to_ints,
    within,
)

SMALLEST_MAX: Final = np.float32(1e-30)
"""Keeps 127 / max finite for a group of zeros; far below any activation that matters."""
_LEVELS: Final = np.float32(127.0)
_STEP: Final = np.float32(1.0 / 127.0)
_LOG2_E: Final = np.float32(math.log2(math.e))
# 2^f on [-1/2, 1/2], relative error below 2.6e-6: finer than the int8 that all of its results become.
_C4, _C3, _C2 = np.float32(0.009570101276040077), np.float32(0.05591785907745361), np.float32(0.240247443318367)
_C1, _C0 = np.float32(0.6931217908859253), np.float32(0.9999992847442627)
_GELU_A: Final = np.float32(2.0 * math.sqrt(2.0 / math.pi))
_GELU_B: Final = np.float32(2.0 * math.sqrt(2.0 / math.pi) * 0.044715)
_ONE: Final = np.float32(1.0)
SILU, GELU_TANH = 0, 1


@compiled
def exp2(x: Any) -> Any:
    """2^x of 16 numbers from -100 to 100, by multiplying and adding alone. The caller clamps."""
    whole = nearest(x)
    f = x - whole
    power = ((splat(_C4) * f + splat(_C3)) * f + splat(_C2)) * f + splat(_C1)
    return (power * f + splat(_C0)) * power_of_two(to_ints(whole))


@compiled
def quantize(a: Any, b: Any, c: Any, d: Any, to: Any, scale_at: Any, start_at: Any) -> None:
    """A group of 64 numbers -> int8 at `to`, their scale, and -128 times their sum. NaN or infinity makes it so."""
    largest = max_magnitude(
        larger_int(larger_int(magnitudes(a), magnitudes(b)), larger_int(magnitudes(c), magnitudes(d)))
    )
    if largest < SMALLEST_MAX:
        largest = SMALLEST_MAX
    levels = splat(_LEVELS / largest)
    qa, qb, qc, qd = (
        to_ints(nearest(a * levels)),
        to_ints(nearest(b * levels)),
        to_ints(nearest(c * levels)),
        to_ints(nearest(d * levels)),
    )
    store_bytes(to, qa)
    store_bytes(to + 16, qb)
    store_bytes(to + 32, qc)
    store_bytes(to + 48, qd)
    store_float(scale_at, largest * _STEP)
    store_int(start_at, np.int32(-128) * sum_int_lanes((qa + qb) + (qc + qd)))


@compiled
def inverse_rms(x: Any, width: Any, padded: Any, eps: Any) -> Any:
    """1 / sqrt(mean of squares + eps) of a row of `width` numbers at address `x`, padded with zeros."""
    a = b = c = d = splat(np.float32(0.0))
    for at in range(x, x + 4 * padded, 4 * GROUP):
        va, vb, vc, vd = load_floats(at), load_floats(at + 64), load_floats(at + 128), load_floats(at + 192)
        a, b, c, d = a + va * va, b + vb * vb, c + vc * vc, d + vd * vd
    return np.float32(1.0 / math.sqrt(np.float64(sum_lanes((a + b) + (c + d))) / width + eps))


@compiled
def norm_quantize(x: Any, weight: Any, width: Any, padded: Any, eps: Any, to: Any, scales: Any, starts: Any) -> None:
    """A row's norm as int8 in groups of 64. Addresses: x, weight float32; to int8; scales float32; starts int32."""
    inverse = splat(inverse_rms(x, width, padded, eps))
    for group in range(padded // GROUP):
        at, by = x + 4 * GROUP * group, weight + 4 * GROUP * group
        quantize(
            load_floats(at) * inverse * load_floats(by),
            load_floats(at + 64) * inverse * load_floats(by + 64),
            load_floats(at + 128) * inverse * load_floats(by + 128),
            load_floats(at + 192) * inverse * load_floats(by + 192),
            to + GROUP * group,
            scales + 4 * group,
            starts + 4 * group,
        )


@compiled
def add_norm(x: Any, y: Any, weight: Any, width: Any, padded: Any, eps: Any) -> None:
    """x += norm(y), rows of float32 at addresses."""
    inverse = splat(inverse_rms(y, width, padded, eps))
    for offset in range(0, 4 * padded, 64):
        store_floats(
            x + offset, load_floats(x + offset) + load_floats(y + offset) * inverse * load_floats(weight + offset)
        )


@compiled
def quantize_row(x: Any, padded: Any, to: Any, scales: Any, starts: Any) -> None:
    """A row of float32 as int8 in groups of 64."""
    for group in range(padded // GROUP):
        at = x + 4 * GROUP * group
        quantize(
            load_floats(at),
            load_floats(at + 64),
            load_floats(at + 128),
            load_floats(at + 192),
            to + GROUP * group,
            scales + 4 * group,
            starts + 4 * group,
        )


@compiled
def _gated(gate: Any, up: Any, kind: Any) -> Any:
    """gate * sigmoid(t) * up with t = gate (SiLU), or t = sqrt(8 / pi) (gate + 0.044715 gate^3) (GELU by tanh)."""
    t = gate if kind == SILU else gate * (splat(_GELU_A) + splat(_GELU_B) * gate * gate)
    return gate / (splat(_ONE) + exp2(within(t * splat(-_LOG2_E), np.float32(-100.0), np.float32(100.0)))) * up


@compiled
def gate_quantize(
    gate: Any, up: Any, gate_scale: Any, up_scale: Any, kind: Any, to: Any, scale_at: Any, start_at: Any
) -> None:
    """64 columns of a row behind the gate and up products: scale, activate, multiply, quantise. All are addresses."""
    quantize(
        _gated(load_floats(gate) * load_floats(gate_scale), load_floats(up) * load_floats(up_scale), kind),
        _gated(
            load_floats(gate + 64) * load_floats(gate_scale + 64),
            load_floats(up + 64) * load_floats(up_scale + 64),
            kind,
        ),
        _gated(
            load_floats(gate + 128) * load_floats(gate_scale + 128),
            load_floats(up + 128) * load_floats(up_scale + 128),
            kind,
        ),
        _gated(
            load_floats(gate + 192) * load_floats(gate_scale + 192),
            load_floats(up + 192) * load_floats(up_scale + 192),
            kind,
        ),
        to,
        scale_at,
        start_at,
    )
