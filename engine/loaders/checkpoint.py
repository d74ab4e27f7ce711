"""What a model asks of a file of weights, whatever its format: tensors by role, one at a time, as float32."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Levels:
    """The 16 evenly spaced values that weights of a run of 32 inputs may have: lowest + n * step, n from 0 to 15."""

    step: NDArray[np.float32]  # [out, in / 32]
    lowest: NDArray[np.float32]  # [out, in / 32]


class Checkpoint(Protocol):
    """The weights of one open model. Peak memory beside what the caller keeps: one unpacked tensor.

    Whatever the format, the caller gets: linear weights as [out, in]; query and key rows (and biases) in the halves
    layout of rotary embedding; norm weights as the factor itself (Gemma's published 1 + w already added up).
    """

    def has(self, role: str, layer: int | None = None) -> bool:
        """Whether the file has this tensor: "output" is missing where it is the embedding itself."""
        ...

    def take(self, role: str, shape: tuple[int, ...], layer: int | None = None) -> NDArray[np.float32]:
        """A tensor as finite float32 of exactly this shape. Raises ModelFileError for any other."""
        ...

    def has_levels(self, role: str, layer: int | None = None) -> bool:
        """Whether the file keeps these weights in four bits, so that `levels` can say which values they have."""
        ...

    def levels(self, role: str, shape: tuple[int, ...], layer: int | None = None) -> Levels:
        """Of a tensor that has them, rows in the order of `take`. Raises ModelFileError as `take` does."""
        ...
