"""Rotations of positions by one way of turning them into angles; knows one head's width and no model.

A table of every position would take 128 MiB at 131,072 positions of 128-wide heads. The sum of two angles needs two
small ones: position = 256 * coarse + fine,

    cos(a + b) = cos a cos b - sin a sin b        sin(a + b) = sin a cos b + cos a sin b

in float64 with separate products and sums, so that a position has the same bits in every batch.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from engine.models.shape import RotaryShape

_FINE: Final = 256


@dataclass(frozen=True, slots=True)
class Rotation:
    """The turn of each row of a step: cos = [c, c] and sin = [-s, s], each [rows, 1, head_dim]."""

    cos: Tensor
    sin: Tensor


class Rotary:
    """One of a model's rotaries, for positions below `context`."""

    def __init__(self, rotary: RotaryShape, head_dim: int, context: int, device: torch.device) -> None:
        half = head_dim // 2
        frequencies = rotary.theta ** (-np.arange(half, dtype=np.float64) / half)  # [head_dim / 2]
        if rotary.factors is not None:
            frequencies = frequencies / np.array(rotary.factors)
        self._fine = _turns(np.arange(_FINE), frequencies, device)
        self._coarse = _turns(np.arange(-(-context // _FINE)) * _FINE, frequencies, device)

    def at(self, positions: Tensor) -> Rotation:
        """positions int64 [rows]."""
        cos_a, sin_a = self._coarse.index_select(1, positions // _FINE)  # [rows, 1, head_dim / 2] each
        cos_b, sin_b = self._fine.index_select(1, positions % _FINE)
        cos = (cos_a * cos_b).sub_(sin_a * sin_b).float()
        sin = (sin_a * cos_b).add_(cos_a * sin_b).float()
        return Rotation(torch.cat((cos, cos), -1), torch.cat((-sin, sin), -1))


def _turns(positions: NDArray[np.int64], frequencies: NDArray[np.float64], device: torch.device) -> Tensor:
    """Cosines and sines of each position's angles: float64 [2, positions, 1, head_dim / 2]."""
    angles = np.outer(positions, frequencies)
    return torch.from_numpy(np.stack((np.cos(angles), np.sin(angles)))).unsqueeze(2).to(device)
