"""Numbers that two sides of a border have each for itself, because one must not import the other: they are the same."""

import numpy as np
import pytest

from engine.cpu_backend import packing
from engine.loaders.gguf import FORMATS
from engine.loaders.unpacking import LEVELS
from engine.models import shape

pytest.importorskip("numba")

from kernels.cpu import attention, levels, matmul


def test_packing_writes_what_products_read() -> None:
    assert packing.GROUP == matmul.GROUP
    assert packing.GROUP_BYTES == matmul.GROUP_BYTES
    assert packing.RUN == levels.RUN
    assert packing.LEVEL_GROUP_BYTES == levels.GROUP_BYTES


def test_a_group_of_levels_takes_the_bytes_that_packing_writes() -> None:
    numbers = np.zeros((packing.GROUP, packing.GROUP), np.uint16)
    pairs = np.zeros((packing.GROUP, packing.GROUP // packing.RUN, 2), np.uint16)
    assert packing.packed_levels(numbers, pairs).shape == (1, levels.GROUP_BYTES)


def test_heads_are_counted_as_they_are_kept() -> None:
    assert shape._AT_ONCE == packing.GROUP
    assert packing.GROUP % attention.BLOCK == 0, "_score takes 16 numbers of a head at a time"


@pytest.mark.parametrize("name", LEVELS)
def test_files_keep_runs_as_long_as_those_of_tiles(name: str) -> None:
    (format_,) = (each for each in FORMATS.values() if each.name == name)
    step, lowest = LEVELS[name](np.zeros((3, format_.block_bytes), np.uint8))
    assert step.size == lowest.size == 3 * format_.block_size // packing.RUN
