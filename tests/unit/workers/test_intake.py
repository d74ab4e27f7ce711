"""How much a worker claims."""

import pytest

from workers.inference.holdings import Load
from workers.inference.intake import MICRO_BATCH, NO_ROOM, Room, room


@pytest.mark.parametrize(
    ("load", "expected"),
    [
        (Load(), Room(MICRO_BATCH, 1000)),
        (Load(jobs=30, kv_tokens=300), Room(2, 700)),
        (Load(jobs=32, kv_tokens=300), NO_ROOM),
        (Load(jobs=3, kv_tokens=1000), NO_ROOM),
        (Load(jobs=3, kv_tokens=1200), NO_ROOM),
        (Load(jobs=1, kv_tokens=10, solo=True), NO_ROOM),
    ],
)
def test_room(load: Load, expected: Room) -> None:
    assert room(load, capacity=1000, max_jobs=32) == expected
