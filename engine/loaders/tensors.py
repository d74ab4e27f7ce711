"""What a file of weights offers, whatever its container: named tensors, their packing, their bytes."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class BlockFormat:
    """How a tensor type packs its values: `block_size` values of one row in `block_bytes` bytes."""

    name: str
    block_size: int
    block_bytes: int


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """Where a tensor lies. `shape` is in numpy order: rows first, as [out, in]."""

    name: str
    shape: tuple[int, ...]
    format: BlockFormat
    offset: int  # bytes from the start of the file
    nbytes: int


class TensorFile(Protocol):
    """An open container, or several that make up one model."""

    @property
    def tensors(self) -> Mapping[str, TensorInfo]: ...

    def raw(self, name: str) -> NDArray[np.uint8]:
        """The packed bytes of one tensor, a read-only view.  # [nbytes]"""
        ...


def value_count(shape: tuple[int, ...]) -> int:
    """How many values a tensor of this shape has. Python integers: an absurd shape grows, it does not wrap."""
    count = 1
    for extent in shape:
        count *= extent
    return count


def count_values(tensors: Iterable[TensorInfo]) -> Counter[str]:
    """How many values are stored in each format, by its name."""
    counts: Counter[str] = Counter()
    for tensor in tensors:
        counts[tensor.format.name] += value_count(tensor.shape)
    return counts
