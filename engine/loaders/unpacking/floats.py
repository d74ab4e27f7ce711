"""Tensors that are not packed at all: float32, float16 and bfloat16, little-endian."""

from collections.abc import Callable
from typing import Final

import numpy as np

from engine.loaders.unpacking.types import Bytes, Floats


def _f32(blocks: Bytes, out: Floats) -> None:
    out[...] = np.ascontiguousarray(blocks).view("<f4")


def _f16(blocks: Bytes, out: Floats) -> None:
    out[...] = np.ascontiguousarray(blocks).view("<f2")


def _bf16(blocks: Bytes, out: Floats) -> None:
    """bfloat16 is the upper half of a float32."""
    np.left_shift(np.ascontiguousarray(blocks).view("<u2"), 16, out=out.view(np.uint32), casting="unsafe", dtype="u4")


FLOATS: Final[dict[str, Callable[[Bytes, Floats], None]]] = {"F32": _f32, "F16": _f16, "BF16": _bf16}
