"""Tables of the angles that a model's rotaries turn positions by; knows shapes, no heads.

A GPU's own sine of a large angle is neither exact nor the same on every device, so angles are taken on the host, in
float64, once: 2 x context x head_dim / 2 x 4 bytes for each rotary.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from torch import Tensor

from engine.models.shape import RotaryShape

_AT_ONCE: Final = 4096  # positions whose float64 angles are held at a time


@dataclass(frozen=True, slots=True)
class AngleTable:
    """Cosines and sines, float32 [positions, head_dim / 2]."""

    cos: Tensor
    sin: Tensor


def angle_table(rotary: RotaryShape, head_dim: int, positions: int, device: torch.device) -> AngleTable:
    """For positions 0 to `positions`, rounded from float64."""
    half = head_dim // 2
    frequencies = np.float64(rotary.theta) ** (-np.arange(half) / half)
    if rotary.factors is not None:
        frequencies = frequencies / np.array(rotary.factors)
    cos, sin = np.empty((positions, half), np.float32), np.empty((positions, half), np.float32)
    for start in range(0, positions, _AT_ONCE):
        part = slice(start, start + _AT_ONCE)
        angles = np.outer(np.arange(start, min(start + _AT_ONCE, positions)), frequencies)
        cos[part], sin[part] = np.cos(angles), np.sin(angles)
    return AngleTable(torch.from_numpy(cos).to(device), torch.from_numpy(sin).to(device))
