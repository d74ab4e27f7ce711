"""Unpacks tensor types to float32, a slab at a time; knows block layouts, not what a tensor is for."""

from collections.abc import Callable
from typing import Final

import numpy as np

from engine.loaders.tensors import BlockFormat
from engine.loaders.unpacking.blocks import BLOCKS_OF_32
from engine.loaders.unpacking.floats import FLOATS
from engine.loaders.unpacking.k_quants import K_QUANTS
from engine.loaders.unpacking.levels import LEVELS
from engine.loaders.unpacking.types import Bytes, Floats

__all__ = ["LEVELS", "Bytes", "Floats", "all_finite", "unpack"]

_UNPACKERS: Final[dict[str, Callable[[Bytes, Floats], None]]] = {**FLOATS, **BLOCKS_OF_32, **K_QUANTS}
_SLAB_VALUES: Final = 1 << 16  # 256 kB of float32: the passes over a slab stay in the cache of a core


def unpack(raw: Bytes, layout: BlockFormat, shape: tuple[int, ...]) -> Floats:
    """Packed bytes [nbytes] -> float32 of `shape`, and less than 2 MB beside it.

    The caller has checked that type, bytes and shape agree (every container does when it is opened).
    """
    blocks = raw.reshape(-1, layout.block_bytes)
    values = np.empty((len(blocks), layout.block_size), dtype=np.float32)
    unpack_slab, slab = _UNPACKERS[layout.name], _SLAB_VALUES // layout.block_size
    with np.errstate(all="ignore"):  # a damaged scale may overflow: the caller looks for what is not finite
        for start in range(0, len(blocks), slab):
            unpack_slab(blocks[start : start + slab], values[start : start + slab])
    return values.reshape(shape)


def all_finite(values: Floats) -> bool:
    """Whether no value is infinite or NaN."""
    flat = values.reshape(-1)
    return all(np.isfinite(flat[at : at + _SLAB_VALUES]).all() for at in range(0, flat.size, _SLAB_VALUES))
