"""Cuts the tail off a Redis server's append-only file, as a crash of its machine does. Knows the file, no key."""

from collections.abc import Iterator
from pathlib import Path
from random import Random


class Tail:
    """What a server has written since this was made. Make it while the server runs, cut while it does not."""

    def __init__(self, folder: Path) -> None:
        self._path = _newest(folder)
        self._start = self._path.stat().st_size

    def commands(self) -> int:
        return len(self._borders()) - 1

    def cut_commands(self, count: int) -> int:
        """Take away the last `count` commands; how many there were to take."""
        borders = self._borders()
        count = min(count, len(borders) - 1)
        self._truncate(borders[-1 - count])
        return count

    def cut_within(self, count: int, dice: Random) -> int:
        """The same, and a part of the command before them, which is left in pieces."""
        borders = self._borders()
        count = min(count, len(borders) - 2)
        if count < 0:
            return 0
        begin, end = borders[-2 - count], borders[-1 - count]
        self._truncate(dice.randrange(begin + 1, end))
        return count + 1

    def _borders(self) -> list[int]:
        """Where each command begins, and where the last one ends."""
        with self._path.open("rb") as file:
            file.seek(self._start)
            data = file.read()
        return [self._start, *(self._start + end for end in _ends(data))]

    def _truncate(self, size: int) -> None:
        with self._path.open("r+b") as file:
            file.truncate(size)


def _newest(folder: Path) -> Path:
    """Redis 7 and later keep the file in parts; what is written now goes to the last one."""
    parts = sorted(folder.glob("appendonlydir/*.incr.aof"), key=lambda path: int(path.name.split(".")[-3]))
    return parts[-1] if parts else folder / "appendonly.aof"


def _ends(data: bytes) -> Iterator[int]:
    """Where each whole command ends: `*<parts>` and then `$<length>` and its bytes for each part."""
    at = 0
    while at < len(data):
        line = data.find(b"\r\n", at)
        if line < 0:
            return
        parts = int(data[at + 1 : line])
        at = line + 2
        for _ in range(parts):
            line = data.find(b"\r\n", at)
            if line < 0:
                return
            at = line + 2 + int(data[at + 1 : line]) + 2
        if at <= len(data):
            yield at
