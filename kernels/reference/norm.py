"""RMS norm whose sum of squares is a sum of whole numbers; knows one row at a time.

A float sum of squares depends on how the row is cut among SIMD lanes and threads. Here the row is first put on a grid
of 2^20 steps of its own maximum; squares of grid points are whole numbers, and float64 adds them without rounding.
"""

import math

import torch
from torch import Tensor

from kernels.reference.quantize import SMALLEST_MAX

_FLOAT64_BITS = 53
_MAX_GRID_BITS = 20


def grid_steps(width: int) -> float:
    """The finest power-of-two grid on which `width` squares still add up below 2^53."""
    bits = (_FLOAT64_BITS - math.ceil(math.log2(max(width, 2)))) // 2
    return float(2 ** min(bits, _MAX_GRID_BITS))


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    width = x.shape[-1]
    steps = grid_steps(width)
    largest = x.abs().amax(-1, keepdim=True).clamp_(min=SMALLEST_MAX)  # [rows, 1]
    on_grid = (x * (steps / largest)).round_().double()  # [rows, width], whole numbers
    total = on_grid.square_().sum(-1, keepdim=True)  # [rows, 1], exact
    step = largest.double() / steps
    mean = total * step * step / width
    return x * (1.0 / torch.sqrt(mean + eps)).float() * weight
