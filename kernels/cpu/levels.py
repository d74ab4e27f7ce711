"""Weights that are kept in four bits, made into the int8 tiles that products read; knows no product and no layer.

A weight that its file keeps as one of 16 evenly spaced levels stays that: 5 bits to fetch from memory instead of 8, and
memory is what a step of few rows waits for. The int8 weight is made of whole numbers by whole numbers:

    byte = (low + step * level) >> 8        modulo 2^16; byte - 128 is the int8 weight

`low` and `step` belong to a run of 32 inputs of an output, in 256ths of an int8 weight.
    packed tile of 64 outputs   [groups, 2 runs, 4 x 16 outputs, 320 bytes]
    320 bytes                   16 x (step, low) uint16 | 4 pairs of quads x 64 bytes of levels
    64 bytes of levels          [16 outputs, 2 halves of a quad] uint16, from its lowest bits on:
                                | first quad: input 0 or 2 | input 1 or 3 | second quad: the same two |
"""

from typing import Any, Final

from llvmlite import ir
from numba import types
from numba.core import cgutils

from kernels.cpu.compiling import addressed
from kernels.cpu.matmul import GROUP
from kernels.cpu.simd import I32, I64, call_address, emit_prefetch, operation, pointer

RUN: Final = 32
"""Inputs that share a step and a lowest level."""
_LINE: Final = 64
_RUNS: Final = GROUP // RUN  # of a group
_QUARTERS: Final = 4  # of a tile's outputs, one vector each
_PAIRS: Final = RUN // 8  # of quads in a run
_QUARTER_BYTES: Final = (1 + _PAIRS) * _LINE
GROUP_BYTES: Final = _RUNS * _QUARTERS * _QUARTER_BYTES
"""Of a group of 64 inputs of a tile."""
_QUAD_BYTES: Final = 4 * GROUP
_ASKED_LINES: Final = 4  # of five: memory takes longer to bring a tile than unpacking to make one
ASKED_FOR: Final = _RUNS * _QUARTERS * _ASKED_LINES * _LINE
"""Bytes that unpacking a group asks memory for, from the tile that follows; the rest is left to the product."""
_LANES: Final = 32
_WORDS: Final = ir.VectorType(ir.IntType(16), _LANES)


def _emit_unpack(b: Any, packed: Any, out: Any, groups: Any, following: Any) -> None:
    with cgutils.for_range(b, b.mul(groups, I64(_RUNS)), intp=I64) as run:
        for quarter in range(_QUARTERS):
            number = b.add(b.mul(run.index, I64(_QUARTERS)), I64(quarter))
            at = b.add(packed, b.mul(number, I64(_QUARTER_BYTES)))
            soon = b.add(following, b.mul(number, I64(_ASKED_LINES * _LINE)))
            for line in range(_ASKED_LINES):
                emit_prefetch(b, b.add(soon, I64(line * _LINE)))
            to = b.add(out, b.add(b.mul(run.index, I64(2 * _PAIRS * _QUAD_BYTES)), I64(quarter * _LINE)))
            _unpack_quarter(b, at, to)


def _unpack_quarter(b: Any, at: Any, to: Any) -> None:
    """A run of 16 outputs: eight vectors of bytes, one in each quad."""
    pairs = _load(b, at)
    step, low = _spread_every_other(b, pairs, 0), _spread_every_other(b, pairs, 1)
    for pair in range(_PAIRS):
        levels = _load(b, b.add(at, I64((1 + pair) * _LINE)))
        for quad in range(2):
            first = b.and_(b.lshr(levels, _all(8 * quad)), _all(15))
            second = b.and_(b.lshr(levels, _all(8 * quad + 4)), _all(15))
            lower = b.lshr(b.add(b.mul(first, step), low), _all(8))
            upper = b.and_(b.add(b.mul(second, step), low), _all(0xFF00))
            place = b.add(to, I64((2 * pair + quad) * _QUAD_BYTES))
            b.store(b.or_(lower, upper), pointer(b, place, _WORDS), align=4)


def _load(b: Any, at: Any) -> Any:
    return b.load(pointer(b, at, _WORDS), align=4)


def _all(value: int) -> Any:
    return ir.Constant(_WORDS, [value] * _LANES)


def _spread_every_other(b: Any, words: Any, first: int) -> Any:
    """Lanes first, first, first + 2, first + 2, ..."""
    lanes = [2 * (lane // 2) + first for lane in range(_LANES)]
    return b.shuffle_vector(words, ir.Constant(_WORDS, ir.Undefined), ir.Constant(ir.VectorType(I32, _LANES), lanes))


_unpack = operation(types.void, (types.int64,) * 4, _emit_unpack)


@addressed(4)
def unpack_tile(packed: int, out: int, groups: int, following: int) -> None:
    """A tile of 64 outputs at `packed` -> the same in bytes at `out`, as products read it; `groups` of 64 inputs.

    Meanwhile most of the tile at `following` is asked for.
    """
    _unpack(packed, out, groups, following)


def unpacked_to(packed: int, out: int, groups: int) -> None:
    """`unpack_tile` for callers in Python."""
    unpack_tile.ctypes(packed, out, groups, packed)


call_unpack = operation(types.void, (types.int64,) * 5, call_address)
"""`unpack_tile` by its address, and its arguments."""
