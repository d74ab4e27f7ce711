"""Proof at start that this machine multiplies packed int8 weights exactly; knows products and nothing behind them."""

from collections.abc import Iterable
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from engine.cpu_backend.memory import address, aligned
from engine.cpu_backend.packing import (
    GROUP,
    GROUP_BYTES,
    LEVEL_GROUP_BYTES,
    RUN,
    bytes_of_levels,
    pack_rows,
    packed_levels,
    padded,
)
from kernels.cpu import levels, matmul
from kernels.cpu.levels import unpacked_to
from kernels.cpu.matmul import product_of

# Packing is imported where there is no numba, so it has these numbers of its own: others would write beside the arrays.
assert (GROUP, GROUP_BYTES) == (matmul.GROUP, matmul.GROUP_BYTES)
assert (RUN, LEVEL_GROUP_BYTES) == (levels.RUN, levels.GROUP_BYTES)

# One row, every size of block, and some that are made of several.
_ROWS: Final = (1, 2, 3, 4, 5, 6, 7, 13)


def products_are_exact(widths: Iterable[int]) -> bool:
    """Whether tiles over each of `widths` inputs equal int64 arithmetic where saturation would show, all at +-127, and
    whether every row alone gives what it gave among others."""
    random = np.random.default_rng(0)
    return all(_is_exact(padded(width), random) for width in sorted(set(widths)))


def levels_are_exact() -> bool:
    """Whether a tile of levels becomes the bytes of its formula, where 16 bits are too few for its products, too."""
    random = np.random.default_rng(1)
    inputs = 2 * GROUP
    numbers = random.integers(0, 16, (GROUP, inputs), dtype=np.uint16)
    pairs = random.integers(0, 1 << 16, (GROUP, inputs // RUN, 2), dtype=np.uint16)
    tile, out = packed_levels(numbers, pairs), aligned((inputs // 4, GROUP, 4), np.uint8)
    unpacked_to(address(tile), address(out), inputs // GROUP)
    return np.array_equal(out.transpose(1, 0, 2).reshape(GROUP, inputs), bytes_of_levels(numbers, pairs))


def _is_exact(width: int, random: np.random.Generator) -> bool:
    weights, x = _extremes(GROUP, width, random), _extremes(max(_ROWS), width, random)
    tiles, scales = aligned((1, width * GROUP), np.uint8), aligned((GROUP,), np.float32)
    pack_rows(weights.astype(np.float32), tiles, scales)
    x_scales = random.uniform(0.5, 2.0, (len(x), width // GROUP)).astype(np.float32)
    expected = _expected(x, x_scales, weights)
    alone = [_products(x[row : row + 1], x_scales[row : row + 1], tiles) for row in range(len(x))]
    return np.array_equal(np.concatenate(alone), expected) and all(
        np.array_equal(_products(x[:rows], x_scales[:rows], tiles), expected[:rows]) for rows in _ROWS
    )


def _extremes(rows: int, width: int, random: np.random.Generator) -> NDArray[np.int8]:
    """+-127; the first row is all +127, the largest sum there is."""
    signs = random.integers(0, 2, (rows, width), dtype=np.int8)
    signs[0] = 1
    return (signs * np.int16(254) - 127).astype(np.int8)


def _expected(x: NDArray[np.int8], scales: NDArray[np.float32], weights: NDArray[np.int8]) -> NDArray[np.float32]:
    """Groups in ascending order, product and sum rounded apart."""
    total = np.zeros((len(x), len(weights)), dtype=np.float32)
    for group in range(scales.shape[1]):
        inputs = slice(group * GROUP, (group + 1) * GROUP)
        whole = x[:, inputs].astype(np.int64) @ weights[:, inputs].astype(np.int64).T
        total += whole.astype(np.float32) * scales[:, group : group + 1]
    return total


def _products(x: NDArray[np.int8], scales: NDArray[np.float32], tiles: NDArray[Any]) -> NDArray[np.float32]:
    rows, groups = scales.shape
    x, scales = np.ascontiguousarray(x), np.ascontiguousarray(scales)
    starts = -128 * x.reshape(rows, groups, GROUP).sum(axis=2, dtype=np.int32)
    out = aligned((rows, GROUP), np.float32)
    product_of(address(x), address(scales), address(starts), address(tiles), address(out), rows, groups)
    return out
