"""What a measurement against peers amounts to: samples, their ratios, and the record kept in results. Pure values."""

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Sample:
    """One round of one workload: ours and the peer's output tokens per second, measured one right after the other."""

    peer: str
    workload: str
    ours: float
    theirs: float

    @property
    def ratio(self) -> float:
        """How many times as fast ours was."""
        return self.ours / self.theirs


def pair_order(round_number: int, names: Sequence[str]) -> list[str]:
    """The peers of one round: each round begins with another one, so that no one always has the same neighbour."""
    if not names:
        return []
    start = round_number % len(names)
    return [*names[start:], *names[:start]]


def summary(samples: Iterable[Sample]) -> dict[str, Any]:
    """Of one peer on one workload: medians of the speeds, and of the ratios of the single rounds."""
    taken = list(samples)
    ratios = [sample.ratio for sample in taken]
    return {
        "ours_tok_s": _rounded(statistics.median(sample.ours for sample in taken)),
        "tok_s": _rounded(statistics.median(sample.theirs for sample in taken)),
        "ratio": round(statistics.median(ratios), 2),
        "ratio_min": round(min(ratios), 2),
        "ratio_max": round(max(ratios), 2),
        "rounds": [[_rounded(sample.ours), _rounded(sample.theirs)] for sample in taken],
    }


def summaries(samples: Iterable[Sample]) -> dict[str, dict[str, Any]]:
    """By workload, of one peer's samples."""
    found: dict[str, list[Sample]] = {}
    for sample in samples:
        found.setdefault(sample.workload, []).append(sample)
    return {workload: summary(own) for workload, own in found.items()}


def merged(earlier: Mapping[str, Any], later: Mapping[str, Any]) -> dict[str, Any]:
    """Records by peer: `later` ones replace what `earlier` ones say of the same peer and workload, and keep the rest.

    A workload keeps its own commit and date, so that a table of several sittings still says what it shows.
    """
    together = {name: dict(record) for name, record in earlier.items()}
    for name, record in later.items():
        before = together.get(name, {})
        workloads = {**before.get("workloads", {}), **record.get("workloads", {})}
        failures = {**before.get("failures", {}), **record.get("failures", {})}
        stale = record.get("workloads", {}).keys()
        failures = {workload: said for workload, said in failures.items() if workload not in stale}
        workloads = {workload: said for workload, said in workloads.items() if workload not in failures}
        together[name] = {**before, **record, "workloads": workloads, "failures": failures}
        if "error" not in record:
            together[name].pop("error", None)
    return together


def _rounded(value: float) -> float:
    return round(value, 1)
