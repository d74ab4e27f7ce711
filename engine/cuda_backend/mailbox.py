"""Named arrays that travel between host and device in one copy; knows their places, not what they mean.

    | first field | second field | ... | last field |          each begins at a multiple of 256 bytes

There are two host sides, taken in turn: while a copy of one may still be under way, the next step fills the other.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Arrays: TypeAlias = dict[str, NDArray[np.generic]]

_ALIGNMENT: Final = 256
_SIDES: Final = 2


@dataclass(frozen=True, slots=True)
class Field:
    """One array's type and its largest shape."""

    dtype: torch.dtype
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        return int(np.prod(self.shape)) * self.dtype.itemsize


class Mailbox:
    """`tensors` are the device's side, at addresses that never change."""

    def __init__(self, fields: Mapping[str, Field], device: torch.device) -> None:
        self._starts: dict[str, int] = {}
        total = 0
        for name, field in fields.items():
            self._starts[name] = total
            total += -(-field.nbytes // _ALIGNMENT) * _ALIGNMENT
        self._device = torch.zeros(total, dtype=torch.uint8, device=device)
        pinned = device.type == "cuda"
        self._hosts = [torch.zeros(total, dtype=torch.uint8, pin_memory=pinned) for _ in range(_SIDES)]
        self._arrays = [
            {name: tensor.numpy() for name, tensor in self._views(host, fields).items()} for host in self._hosts
        ]
        self._side = 0
        self.tensors = self._views(self._device, fields)

    def turn(self) -> Arrays:
        """The other host side, with whatever it held the time before last."""
        self._side = (self._side + 1) % _SIDES
        return self._arrays[self._side]

    def send(self, last: str, count: int) -> None:
        """Host to device, behind what is already under way: all fields before `last`, and the first `count` of it."""
        end = self._starts[last] + count * self.tensors[last].element_size()
        self._device[:end].copy_(self._hosts[self._side][:end], non_blocking=True)

    def fetch(self) -> Arrays:
        """Device to host, behind what is already under way: to be read once that is done."""
        self._side = (self._side + 1) % _SIDES
        self._hosts[self._side].copy_(self._device, non_blocking=True)
        return self._arrays[self._side]

    def _views(self, memory: Tensor, fields: Mapping[str, Field]) -> dict[str, Tensor]:
        return {
            name: memory[start : start + fields[name].nbytes].view(fields[name].dtype).view(fields[name].shape)
            for name, start in self._starts.items()
        }
