"""Threads that walk through one step together: a barrier and a counter of work; knows no arithmetic.

Every thread calls the same compiled function, which gives up the interpreter's lock for the whole step. Work is taken
item by item, so a thread that was held up does less of it; who computes an item changes no bit of it.

    board  int64 at an address, a cache line for each number:  | arrivals | calls | items taken, by counter 0 | 1 | ...
"""

from typing import Any, Final, NamedTuple

import numpy as np
from llvmlite import ir
from numba import types
from numpy.typing import NDArray

from kernels.cpu.compiling import compiled, entry
from kernels.cpu.simd import I64, operation, pointer

_LINE: Final = 8  # int64 numbers in a cache line
_COUNTERS: Final = 2  # lines before them
# A pause takes 15 ns on some processors and three times that on others.
_SPINS: Final = 2_000  # 30 to 100 microseconds; then whoever else wants the core may have it
_SPINS_BETWEEN: Final = 10_000  # 150 to 500 microseconds: longer than the host takes between two calls of a step


def new_board(counters: int) -> NDArray[np.int64]:
    """A board with so many counters of items."""
    return np.zeros((_COUNTERS + counters) * _LINE, dtype=np.int64)


def forget_items(board: NDArray[np.int64]) -> None:
    """Before a step. Arrivals stay: a thread may still be on its way out of the last barrier."""
    board[_COUNTERS * _LINE :] = 0


def call_team(board: NDArray[np.int64]) -> None:
    """Tells whoever lingers that there is work."""
    board[_LINE] += 1


def _add_one(builder: Any, address: Any) -> Any:
    return builder.atomic_rmw("add", pointer(builder, address, I64), I64(1), "seq_cst")


def _look(builder: Any, address: Any) -> Any:
    return builder.load_atomic(pointer(builder, address, I64), "acquire", align=8)


def _pause(builder: Any) -> Any:
    signature = ir.FunctionType(ir.VoidType(), [])
    return builder.call(
        builder.module.globals.get("llvm.x86.sse2.pause")
        or ir.Function(builder.module, signature, "llvm.x86.sse2.pause"),
        [],
    )


_fetch_add = operation(types.int64, (types.int64,), _add_one)
_atomic_load = operation(types.int64, (types.int64,), _look)
_relax = operation(types.void, (), _pause)
_yield_core = types.ExternalFunction("sched_yield", types.int32())


class Share(NamedTuple):
    """What a thread works on: some of a step's rows, and of their items one piece; then it helps with the others'.

    A piece is a run of neighbours: weights that follow each other are fetched ahead by themselves.
    """

    counter: int
    first: int  # row
    past: int
    piece: int
    pieces: int
    own: int  # room.own of this thread


@compiled
def span(share: Any, items: Any) -> Any:
    """Where the share's piece of so many items begins and ends."""
    return items * share.piece // share.pieces, items * (share.piece + 1) // share.pieces


@compiled
def counter(board: Any, number: Any) -> Any:
    """The address of a counter of items."""
    return board + (_COUNTERS + number) * _LINE * 8


@compiled
def next_item(at: Any) -> Any:
    """The number of an item that nobody has taken yet, by its counter; the caller compares with how many there are."""
    return _fetch_add(at)


@compiled
def barrier(board: Any, threads: Any) -> None:
    """Returns when all threads have come here. The count of arrivals only grows, so nobody has to reset it."""
    if threads == 1:
        return
    wanted = (_fetch_add(board) // threads + 1) * threads
    spins = 0
    while _atomic_load(board) < wanted:
        _relax()
        spins += 1
        if spins > _SPINS:
            _yield_core()


@entry
def linger(board: Any, calls: Any) -> None:
    """Returns when the team was called more often than `calls` times, or soon: waking a thread that sleeps takes longer
    than the host needs between two calls of a step."""
    spins = 0
    while spins < _SPINS_BETWEEN and _atomic_load(board + _LINE * 8) <= calls:
        _relax()
        spins += 1
