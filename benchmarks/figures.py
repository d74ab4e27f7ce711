"""Named figures and their bars, as the smaller benchmarks keep and print them. Pure values."""

import math
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


def spread(name: str, values: Sequence[float], bar: str = "") -> Figure:
    """For what is promised of nearly all: median, 99th percentile and the worst, in seconds."""
    shown = f"p50 {percentile(values, 50):.2f} s, p99 {percentile(values, 99):.2f} s, max {max(values):.2f} s"
    return Figure(name, shown, tuple(values), bar)


def percentile(values: Sequence[float], per_cent: float) -> float:
    """By nearest rank: the smallest value that so many per cent of all do not exceed."""
    return sorted(values)[max(0, math.ceil(len(values) * per_cent / 100) - 1)]
