"""Arrays that begin on a cache line, so that none of their vectors lies across two, and their addresses."""

import math
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

_LINE: Final = 64


def aligned(shape: tuple[int, ...], dtype: type[np.generic]) -> NDArray[Any]:
    """Zeros."""
    nbytes = math.prod(shape) * np.dtype(dtype).itemsize
    memory = np.zeros(nbytes + _LINE, np.uint8)
    start = -memory.ctypes.data % _LINE
    return memory[start : start + nbytes].view(dtype).reshape(shape)


def address(array: NDArray[Any]) -> int:
    """Where an array's values begin. Whoever uses it keeps the array alive."""
    assert array.flags.c_contiguous
    return int(array.__array_interface__["data"][0])
