"""Named figures and their bars, as the smaller benchmarks keep and print them. Pure values."""

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Figure:
    """`shown` is what the table says, `all` every value that was measured, `bar` what it was to reach."""

    name: str
    shown: str
    all: tuple[float, ...]
    bar: str = ""

    def record(self) -> dict[str, Any]:
        found = asdict(self)
        found["all"] = [round(value, 3) for value in self.all]
        if not self.bar:
            del found["bar"]
        return found


def seconds(name: str, values: Sequence[float], bar: str = "") -> Figure:
    return Figure(name, f"{statistics.median(values):.2f} s", tuple(values), bar)


def times(name: str, ratios: Sequence[float], bar: str = "") -> Figure:
    return Figure(name, f"{statistics.median(ratios):.2f}x", tuple(ratios), bar)


def share(name: str, ratios: Sequence[float], bar: str = "") -> Figure:
    return Figure(name, f"{statistics.median(ratios) * 100:.0f} %", tuple(ratios), bar)
