"""The arrays between which unpacking goes, and the reading of a half-precision number inside a block."""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Bytes = NDArray[np.uint8]


def half_at(blocks: Bytes, start: int) -> Floats:
    """The float16 at byte `start` of each block.  # [blocks, 1]"""
    return np.ascontiguousarray(blocks[:, start : start + 2]).view("<f2").astype(np.float32)
