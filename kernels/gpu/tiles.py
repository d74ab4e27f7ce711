"""How a row is cut into tiles of whole groups; knows no operation."""

from dataclasses import dataclass
from typing import Final

import triton

# Elements of a row that one program holds in registers, unless a group is larger.
_TILE: Final = 1024


@dataclass(frozen=True, slots=True)
class GroupTile:
    """`rows` groups of `group` inputs, each in `cols` columns (powers of two); `count` tiles make a row."""

    group: int
    rows: int
    cols: int
    count: int


def group_tile(width: int, group: int) -> GroupTile:
    """Tiles of a row of `width` in groups; a group as wide as the row is one tile."""
    group = min(group, width)
    cols = triton.next_power_of_2(group)
    groups = -(-width // group)
    rows = min(max(1, _TILE // cols), triton.next_power_of_2(groups))
    return GroupTile(group, rows, cols, -(-groups // rows))


def whole_row(width: int, group: int) -> GroupTile:
    """The row as one tile, for what needs all of it at once."""
    group = min(group, width)
    return GroupTile(group, triton.next_power_of_2(-(-width // group)), triton.next_power_of_2(group), 1)
