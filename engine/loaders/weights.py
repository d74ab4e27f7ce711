"""Hands out the weights of an open file by the engine's own names, as float32, one at a time; knows no layers.

Peak memory beside what the caller keeps: one unpacked tensor, twice where its rows are put in another order. The file
is mapped, so its pages come and go with the system's cache.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from engine.loaders.checkpoint import Levels
from engine.loaders.files import corrupt
from engine.loaders.inventory import name_of
from engine.loaders.tensors import TensorFile, TensorInfo
from engine.loaders.unpacking import LEVELS, Floats, all_finite, unpack

_ROTATED: Final = ("q", "k", "q_bias", "k_bias")


@dataclass(frozen=True, slots=True)
class WeightLayout:
    """How a format writes an architecture down.

    names         role -> name of the tensor, with a place for the layer
    interleaved   rows (2i, 2i + 1) of each query and key head rotate together, where this engine has (i, i + half)
    norm_offset   what norm weights lack: published Gemma checkpoints hold w where the factor is 1 + w
    """

    names: Mapping[str, str]
    interleaved: bool = False
    norm_offset: float = 0.0


class WeightFile:
    """A Checkpoint over any container. `take` raises ModelFileError for a tensor that is missing or not as asked."""

    def __init__(self, file: TensorFile, layout: WeightLayout, path: Path, *, head_dim: int, own_output: bool) -> None:
        self._file = file
        self._layout = layout
        self._path = path
        self._head_dim = head_dim
        self._own_output = own_output

    def has(self, role: str, layer: int | None = None) -> bool:
        """Whether the file has this tensor."""
        if role == "output":
            return self._own_output
        return name_of(self._layout.names, role, layer) in self._file.tensors

    def take(self, role: str, shape: tuple[int, ...], layer: int | None = None) -> Floats:
        """A tensor as finite float32, query and key rows in the halves layout of RoPE."""
        values = self._unpack(name_of(self._layout.names, role, layer), shape)
        if self._layout.interleaved and role in _ROTATED:
            values = _halves_layout(values, self._head_dim)
        if self._layout.norm_offset and role.endswith("norm"):
            values += np.float32(self._layout.norm_offset)
        return values

    def has_levels(self, role: str, layer: int | None = None) -> bool:
        """Whether its type is one of four bits."""
        info = self._file.tensors.get(name_of(self._layout.names, role, layer) or "")
        return info is not None and info.format.name in LEVELS

    def levels(self, role: str, shape: tuple[int, ...], layer: int | None = None) -> Levels:
        """Which values its weights may have, in the rows of `take`."""
        info = self._find(name_of(self._layout.names, role, layer), shape)
        blocks = self._file.raw(info.name).reshape(-1, info.format.block_bytes)
        found = [part.reshape(shape[0], -1) for part in LEVELS[info.format.name](blocks)]
        if self._layout.interleaved and role in _ROTATED:
            found = [_halves_layout(part, self._head_dim) for part in found]
        return Levels(*found)

    def _find(self, name: str | None, expected: tuple[int, ...]) -> TensorInfo:
        info = None if name is None else self._file.tensors.get(name)
        if info is None or info.shape != expected:
            found = "missing" if info is None else f"of shape {info.shape}"
            raise corrupt(self._path, f"tensor {name!r} is {found}; its metadata asks for {expected}")
        return info

    def _unpack(self, name: str | None, expected: tuple[int, ...]) -> Floats:
        info = self._find(name, expected)
        values = unpack(self._file.raw(info.name), info.format, info.shape)
        if not all_finite(values):
            raise corrupt(self._path, f"tensor {name!r} holds values that are not finite numbers")
        return values


def _halves_layout(values: Floats, head_dim: int) -> Floats:
    """Undoes a converter's interleaving: rows (2i, 2i + 1) of each head become rows (i, i + head_dim / 2)."""
    pairs = values.reshape(len(values) // head_dim, head_dim // 2, 2, -1)
    return np.ascontiguousarray(pairs.swapaxes(1, 2)).reshape(values.shape)
