"""How much one step may still take: rows, and keys that those rows see. Arithmetic; knows no requests and no clock.

The work of a chunk is rows x (the last position it sees + `row_keys`): attention grows with rows times keys, and what a
row costs by itself counts as so many keys more.
"""

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class StepLimits:
    """`rows` at most, and chunks whose work adds up to `keys` at most."""

    rows: int
    keys: int
    row_keys: int = 0


class StepRoom:
    """One step while it is being planned. A single row always fits while rows are left, however far it sees, and so
    does a page's worth of the step's first prompt: each gets on, whatever the limits say."""

    def __init__(self, limits: StepLimits, page_size: int) -> None:
        self._rows, self._keys, self._row_keys = limits.rows, limits.keys, limits.row_keys
        self._page_size = page_size
        self._has_prompt = False

    def rows(self, start: int, wanted: int, kept: int = 0) -> int:
        """How many of the `wanted` rows behind position `start` fit, while `kept` rows are for others; 0 for none."""
        if self._rows < 1:
            return 0
        rows = min(wanted, max(1, self._rows - kept))
        if rows <= 1:
            return rows
        seen = start + self._row_keys
        # The most with rows * (seen + rows) <= keys.
        affordable = (math.isqrt(seen * seen + 4 * max(0, self._keys)) - seen) // 2
        if not self._has_prompt:
            affordable = max(affordable, self._page_size)
        return min(rows, affordable)

    def take(self, start: int, end: int) -> None:
        self._rows -= end - start
        self._keys -= (end - start) * (end + self._row_keys)
        self._has_prompt = self._has_prompt or end - start > 1
