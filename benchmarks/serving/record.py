"""How a measurement of the gateway is kept and shown. Knows the form of all results, no load."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from benchmarks import results
from benchmarks.figures import Figure
from benchmarks.serving.stand import versions
from benchmarks.table import figures_table


def record(
    output: Path, model: str, flags: Mapping[str, Any], runs: Iterable[Mapping[str, Any]], figures: Iterable[Figure]
) -> None:
    """Written with everything that was found in each run, and printed as a table."""
    result = {
        **results.header(Path(model)),
        "versions": versions(),
        "flags": dict(flags),
        "figures": [figure.record() for figure in figures],
        "runs": list(runs),
    }
    results.write(output, result)
    print(figures_table(result))
