"""Which 16 values a run of 32 weights may have, of GGUF's types of four bits; knows scales, not weights.

Q4_0  scale * (nibble - 8)    Q4_1  scale * nibble + min    Q4_K  (scale * run scale) * nibble - (min * run min)
"""

from collections.abc import Callable
from typing import Final

import numpy as np

from engine.loaders.unpacking.k_quants import run_scales
from engine.loaders.unpacking.types import Bytes, Floats, half_at


def _q4_0(blocks: Bytes) -> tuple[Floats, Floats]:
    step = half_at(blocks, 0)
    return step, step * np.float32(-8)


def _q4_1(blocks: Bytes) -> tuple[Floats, Floats]:
    return half_at(blocks, 0), half_at(blocks, 2)


def _q4_k(blocks: Bytes) -> tuple[Floats, Floats]:
    scales, mins = run_scales(blocks)
    return half_at(blocks, 0) * scales, -(half_at(blocks, 2) * mins)


LEVELS: Final[dict[str, Callable[[Bytes], tuple[Floats, Floats]]]] = {"Q4_0": _q4_0, "Q4_1": _q4_1, "Q4_K": _q4_k}
"""Blocks -> step and lowest value of each of their runs.  # [blocks, runs] each"""
