"""Tables of what was killed and what came of it, out of the fault suite's results. Pure: results in, Markdown out."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

POINT_COLUMNS: Final = ("rounds", "struck", "jobs", "tokens", "resumed", "lost", "repeated", "different", "left_over")
"""Fields of a point in the results; `struck` counts the processes that were killed."""

SCENARIO_COLUMNS: Final = ("rounds", "jobs", "tokens", "lost", "repeated", "different", "forgotten", "refused")
_NAMES: Final = {"struck": "kills", "left_over": "left over"}


def points_table(found: Mapping[str, Any]) -> str:
    """One row for each point at which processes were killed, and a sum."""
    points: Sequence[Mapping[str, Any]] = found["points"]
    everything = {"point": "**all**", **{name: sum(point[name] for point in points) for name in POINT_COLUMNS}}
    return _table("point", POINT_COLUMNS, [*points, everything])


def scenarios_table(found: Mapping[str, Any]) -> str:
    """One row for each kind of trouble with Redis and the lines to it."""
    rows = [{**row, "on again": f"{row['on_again_max_s']:.1f} s"} for row in found["scenarios"]]
    return _table("scenario", (*SCENARIO_COLUMNS, "on again"), rows)


def _table(first: str, columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> str:
    lines = [
        [first, *(_NAMES.get(column, column) for column in columns)],
        ["---", *("---:" for _ in columns)],
        *([str(row[first]), *(_shown(row[column]) for column in columns)] for row in rows),
    ]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _shown(value: float | str) -> str:
    return f"{value:,}" if isinstance(value, int) else str(value)
