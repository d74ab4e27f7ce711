"""How much memory this process may still use: the kernel's own files, read and added up. Knows no model.

Sources: proc_meminfo(5); the memory controllers of control groups v2 and v1 in the Linux kernel's admin guide.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_KIB: Final = 1 << 10
_UNLIMITED: Final = 1 << 60  # version 1 says "no limit" as a number near 2^63


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes of one place where pages may live: what is to be had now, and what there is in all."""

    available: int
    total: int


def host_memory(root: Path = Path("/")) -> Memory | None:
    """The least of what the machine and each control group around this process leave; None where nothing says.

    Page cache of a group counts as available: the kernel takes it back before anybody is killed.
    """
    found = [memory for memory in (_machine(root), *_groups(root)) if memory]
    if not found:
        return None
    return Memory(max(0, min(each.available for each in found)), min(each.total for each in found))


def _machine(root: Path) -> Memory | None:
    fields = _fields(root / "proc/meminfo")
    if "MemAvailable:" not in fields or "MemTotal:" not in fields:
        return None
    return Memory(fields["MemAvailable:"] * _KIB, fields["MemTotal:"] * _KIB)


def _groups(root: Path) -> Iterator[Memory | None]:
    """Every group from this process's own up to the root; inside a container its own is the root."""
    for line in _text(root / "proc/self/cgroup").splitlines():
        number, controllers, path = (*line.split(":", 2), "", "")[:3]
        if number == "0" and not controllers:
            base, names = root / "sys/fs/cgroup", ("memory.max", "memory.current", "inactive_file")
        elif "memory" in controllers.split(","):
            base = root / "sys/fs/cgroup/memory"
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
        else:
            continue
        own = Path(path.lstrip("/"))
        for folder in (own, *own.parents):
            yield _group(base / folder, *names)


def _group(folder: Path, limit_name: str, used_name: str, cached_name: str) -> Memory | None:
    limit, used = _text(folder / limit_name).strip(), _text(folder / used_name).strip()
    if not (limit.isdecimal() and used.isdecimal()) or int(limit) >= _UNLIMITED:
        return None
    cached = _fields(folder / "memory.stat").get(cached_name, 0)
    return Memory(int(limit) - max(0, int(used) - cached), int(limit))


def _fields(path: Path) -> dict[str, int]:
    """Lines of a name and a number; what follows the number is a unit."""
    words = [line.split() for line in _text(path).splitlines()]
    return {line[0]: int(line[1]) for line in words if len(line) >= 2 and line[1].isdecimal()}


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
