"""Working memory of a step, as large as the largest step so far."""

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from engine.cpu_backend.memory import address, aligned
from engine.cpu_backend.packing import GROUP, padded
from engine.models.shape import ModelShape
from kernels.cpu.attention import BLOCK
from kernels.cpu.best import Bests
from kernels.cpu.projections import STRIP
from kernels.cpu.records import Room
from kernels.cpu.simd import LANES

_FLOAT_BYTES: Final = 4
_LINE: Final = 64


class WorkingMemory:
    """One model's, for a team of so many threads."""

    def __init__(self, shape: ModelShape, max_context: int, threads: int) -> None:
        self._shape = shape
        self._capacity = 0
        head, hidden = padded(shape.head_dim), padded(shape.hidden_size)
        self._weights_at = max(2, head // GROUP) * STRIP * GROUP * _FLOAT_BYTES
        # The tiles of an item: of gate and up, of a head's queries, or of what is behind attention or the activation.
        inputs = max(2 * hidden, head // GROUP * hidden, shape.num_heads * head, padded(shape.ffn_size))
        self._head_at = self._weights_at + inputs * GROUP
        self._whole_at = self._head_at + head * _FLOAT_BYTES
        self._scores_at = self._whole_at + head
        scores = (max_context + 2 * BLOCK) * _FLOAT_BYTES
        # A line between two threads' parts, or they would take it from each other.
        self._own_bytes = -(-(self._scores_at + scores) // _LINE) * _LINE + _LINE
        self._own = aligned((threads, self._own_bytes), np.uint8)
        self.for_rows(1)

    def for_rows(self, count: int) -> int:
        """The address of a Room for steps of up to `count` rows."""
        if count > self._capacity:
            self._make(count)
        return address(self._room)

    def _make(self, count: int) -> None:
        shape = self._shape
        hidden, head = padded(shape.hidden_size), padded(shape.head_dim)
        middle = max(shape.num_heads * head, padded(shape.ffn_size))
        kept = [
            aligned((count, hidden), np.float32),
            aligned((count, hidden), np.float32),
            *_quantized(count, hidden),
            *_quantized(count, middle),
            aligned((count, shape.num_heads, head), np.int8),
            aligned((count, shape.num_heads), np.float32),
            aligned((count, shape.num_heads), np.int32),
        ]
        x, y, inputs, scales, starts, behind, behind_scales, behind_starts, query, query_scales, query_starts = (
            address(array) for array in kept
        )
        room = Room(
            x=x,
            y=y,
            inputs=inputs,
            input_scales=scales,
            input_starts=starts,
            middle=behind,
            middle_scales=behind_scales,
            middle_starts=behind_starts,
            middle_groups=middle // GROUP,
            query=query,
            query_scales=query_scales,
            query_starts=query_starts,
            own=address(self._own),
            own_bytes=self._own_bytes,
            weights_at=self._weights_at,
            head_at=self._head_at,
            whole_at=self._whole_at,
            scores_at=self._scores_at,
        )
        told = np.array(room, dtype=np.int64)
        # There is memory for all of it, so that it may take the place of what was before, whole.
        self.x: NDArray[Any] = kept[0]
        self._kept, self._room, self._capacity = kept, told, count


class BestMemory:
    """What the threads of a team keep while they look for the best tokens."""

    def __init__(self, threads: int) -> None:
        self._threads = threads
        self._capacity = 0

    def for_rows(self, count: int) -> tuple[int, NDArray[np.int64]]:
        """The address of Bests for up to `count` rows, and the array of their tokens."""
        if count > self._capacity:
            whose, tokens = (self._threads, count), np.empty(count, dtype=np.int64)
            kept = (
                aligned(whose, np.float32),
                aligned(whose, np.int64),
                aligned((*whose, LANES), np.int32),
                tokens,
            )
            told = np.array(Bests(*(address(array) for array in kept)), dtype=np.int64)
            # As above: an address of memory that is no longer kept would be written to.
            self._kept, self._told, self._tokens, self._capacity = kept, told, tokens, count
        return address(self._told), self._tokens


def _quantized(count: int, width: int) -> tuple[NDArray[Any], ...]:
    """Bytes, their groups' scales, and -128 times their sums."""
    groups = (count, width // GROUP)
    return aligned((count, width), np.int8), aligned(groups, np.float32), aligned(groups, np.int32)
