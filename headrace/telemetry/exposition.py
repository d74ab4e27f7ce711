"""Prometheus' text format of what workers and the store say. Knows the table, not where its numbers come from.

Written out by hand because a page of fifty workers has some ten thousand lines, and a gateway relays tokens meanwhile.
What does not fit the table (a newer worker's rows, another version's labels) is left out, never guessed.
"""

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any

from headrace.telemetry.metrics import METRICS, WORKER_METRICS, Labels, MetricRow

Values = Iterable[tuple[Labels, float]]


def workers_text(snapshots: Mapping[str, Mapping[str, Any]]) -> str:
    """The families of all workers; `snapshots` maps worker ids to what `Recorder.snapshot` made.

    Snapshots of a version without labels are shown too: their rows have the same names.
    """
    lines: list[str] = []
    named = [(worker, snapshot) for worker, snapshot in sorted(snapshots.items())]
    for row in WORKER_METRICS.values():
        lines += _heading(row)
        for worker, snapshot in named:
            try:
                lines += _shown(row, worker, snapshot)
            except (KeyError, IndexError, TypeError, ValueError):
                # A beat that is not as ours are costs its own lines and nobody else's.
                continue
    return _joined(lines)


def fleet_text(families: Mapping[str, Values]) -> str:
    """Gauges read from the store: values by labels, for each name of the table."""
    lines: list[str] = []
    for name, values in families.items():
        row = METRICS[name]
        lines += _heading(row)
        lines += [f"{name}{_braces(row.labels, labels)} {_number(value)}" for labels, value in values]
    return _joined(lines)


def _heading(row: MetricRow) -> list[str]:
    return [f"# HELP {row.name} {row.help}", f"# TYPE {row.name} {row.kind}"]


def _shown(row: MetricRow, worker: str, snapshot: Mapping[str, Any]) -> list[str]:
    """One worker's lines of one family. Raises what a malformed snapshot makes Python raise."""
    labelled = snapshot.get("labelled", {}) if row.labels else {}
    if row.kind != "histogram":
        plain = snapshot.get(f"{row.kind}s", {})
        found = [((), plain[row.name])] if row.name in plain and not row.labels else _values(row, labelled)
        names = (*row.labels, "worker")
        return [f"{row.name}{_braces(names, (*labels, worker))} {_number(value)}" for labels, value in found]
    if row.labels:
        return [line for one in _series(row, labelled) for line in _histogram(row, worker, *one)]
    if row.name not in snapshot.get("histograms", {}):
        return []
    one = snapshot["histograms"][row.name]
    bounds, counts = zip(*one["buckets"], strict=True)
    return _histogram(row, worker, (), bounds, (*counts, one["count"]), one["sum"])


def _values(row: MetricRow, labelled: Mapping[str, Any]) -> Iterator[tuple[Labels, float]]:
    for *at, value in labelled.get("values", {}).get(row.name, ()):
        if len(at) == len(row.labels):
            yield tuple(labelled["strings"][index] for index in at), value


def _series(row: MetricRow, labelled: Mapping[str, Any]) -> Iterator[tuple[Labels, Sequence[float], list[int], float]]:
    found = labelled.get("histograms", {}).get(row.name)
    for *at, counts, total in found["series"] if found else ():
        if len(at) == len(row.labels):
            labels = tuple(labelled["strings"][index] for index in at)
            yield labels, found["bounds"], list(itertools.accumulate(counts)), total


def _histogram(
    row: MetricRow, worker: str, labels: Labels, bounds: Sequence[float], seen: Sequence[int], total: float
) -> list[str]:
    inner = _braces((*row.labels, "worker"), (*labels, worker))[1:]
    before = f"{row.name}_bucket{{"
    lines = [f"{before}{le}{inner} {float(count)}" for le, count in zip(_les(tuple(bounds)), seen, strict=True)]
    return [*lines, f"{row.name}_sum{{{inner} {_number(total)}", f"{row.name}_count{{{inner} {float(seen[-1])}"]


@lru_cache(maxsize=64)
def _les(bounds: tuple[float, ...]) -> tuple[str, ...]:
    return (*(f'le="{float(bound)}",' for bound in bounds), 'le="+Inf",')


def _braces(names: Sequence[str], values: Sequence[str]) -> str:
    if not names:
        return ""
    return "{" + ",".join(f'{name}="{_escaped(value)}"' for name, value in zip(names, values, strict=True)) + "}"


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')


def _number(value: float) -> str:
    """As Prometheus reads it; JSON may hold a whole number where a float was meant."""
    number = float(value)
    return repr(number) if math.isfinite(number) else "+Inf" if number > 0 else "-Inf" if number < 0 else "NaN"


def _joined(lines: list[str]) -> str:
    return "\n".join([*lines, ""]) if lines else ""
