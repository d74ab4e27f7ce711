"""Tables of cosines and sines for rotary embedding, made once; knows positions and one head's width."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from engine.models.shape import ModelShape


@dataclass(frozen=True, slots=True)
class Rotation:
    """The turn of each row of a step: cos = [c, c] and sin = [-s, s], each [rows, 1, head_dim]."""

    cos: Tensor
    sin: Tensor


class RotaryTable:
    """The rotations of every position of the context, rounded from float64."""

    def __init__(self, shape: ModelShape, positions: int, device: torch.device) -> None:
        half = shape.head_dim // 2
        frequencies = shape.rotaries[0].theta ** (-np.arange(half, dtype=np.float64) / half)
        angles = np.outer(np.arange(positions, dtype=np.float64), frequencies)  # [positions, head_dim / 2]
        cos, sin = np.cos(angles), np.sin(angles)
        self._cos = _table(np.concatenate((cos, cos), axis=1), device)
        self._sin = _table(np.concatenate((-sin, sin), axis=1), device)

    def at(self, positions: Tensor) -> Rotation:
        """positions int64 [rows]."""
        return Rotation(self._cos.index_select(0, positions), self._sin.index_select(0, positions))


def _table(values: NDArray[np.float64], device: torch.device) -> Tensor:
    return torch.from_numpy(values.astype(np.float32)).unsqueeze(1).to(device)  # [positions, 1, head_dim]
