"""Tables of what was killed and what came of it, out of the fault suite's results. Pure: results in, Markdown out."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

POINT_COLUMNS: Final = ("rounds", "struck", "jobs", "tokens", "resumed", "lost", "repeated", "different", "left_over")
"""Fields of a point in the results; `struck` counts the processes that were killed."""

SCENARIO_COLUMNS: Final = ("rounds", "jobs", "tokens", "lost", "repeated", "different", "forgotten", "refused")
PROMISED: Final = {
    "chaos-fake": "fake engine",
    "chaos-real": "real model",
    "faults": "fake engine",
    "recovery": "fake engine",
    "recovery_real": "real model",
    "cancel": "fake engine",
    "cancel_real": "real model",
    "noisy": "fake engine",
    "submit": "",
    "handoff": "fake engine",
    "streams": "",
    "journal": "",
}
"""Results in which something promised is measured, and what ran in them where their figures do not say so."""

_NAMES: Final = {"struck": "kills", "left_over": "left over"}
_LONGER_THAN_A_LEASE: Final = "stopped-for-long"
_NOTHING_WRONG: Final = "0 lost, repeated or different"


def points_table(found: Mapping[str, Any]) -> str:
    """One row for each point at which processes were killed, and a sum."""
    points: Sequence[Mapping[str, Any]] = found["points"]
    everything = {"point": "**all**", **{name: sum(point[name] for point in points) for name in POINT_COLUMNS}}
    return _table("point", POINT_COLUMNS, [*points, everything])


def scenarios_table(found: Mapping[str, Any]) -> str:
    """One row for each kind of trouble with Redis and the lines to it."""
    rows = [{**row, "on again": f"{row['on_again_max_s']:.1f} s"} for row in found["scenarios"]]
    return _table("scenario", (*SCENARIO_COLUMNS, "on again"), rows)


def promises_table(kept: Mapping[str, Mapping[str, Any]]) -> str:
    """What was promised, from every result that is there: those of its figures that have a bar, and the sums of what
    was killed. Below it when and on which commit each was measured."""
    lines = ["| promised | measured | bar |", "| --- | ---: | --- |"]
    for name, found in kept.items():
        what = f" ({PROMISED[name]})" if PROMISED[name] else ""
        lines += [f"| {promise}{what} | {measured} | {bar} |" for promise, measured, bar in _promises(found)]
    machines = {f"{found['machine']['cpu']}, {found['machine']['cores']} cores" for found in kept.values()}
    commits = ", ".join(f"{name} {found['commit']}" for name, found in kept.items())
    dates = sorted({found["date"] for found in kept.values()})
    return "\n".join(
        [*lines, "", f"{'; '.join(sorted(machines))}; {' to '.join(dates[:1] + dates[1:][-1:])}. Commits: {commits}."]
    )


def _promises(found: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    if points := found.get("points"):
        rounds, kills, jobs, tokens = (_sum(points, name) for name in ("rounds", "struck", "jobs", "tokens"))
        what = f"{len(points)} points of death, {rounds:,} rounds, {kills:,} kills, {jobs:,} jobs, {tokens:,} tokens"
        return [(what, _wrong(points), _NOTHING_WRONG)]
    if scenarios := found.get("scenarios"):
        rounds, jobs, tokens = (_sum(scenarios, name) for name in ("rounds", "jobs", "tokens"))
        what = f"{len(scenarios)} troubles with Redis, {rounds:,} rounds, {jobs:,} jobs, {tokens:,} tokens"
        short = [row for row in scenarios if row["scenario"] != _LONGER_THAN_A_LEASE]
        on_again = max((row["on_again_max_s"] for row in short), default=0.0)
        return [
            (what, _wrong(scenarios), _NOTHING_WRONG),
            ("streams go on after them", f"{on_again:.1f} s at most", "≤ 8 s"),
        ]
    return [(figure["name"], figure["shown"], figure["bar"]) for figure in found["figures"] if "bar" in figure]


def _wrong(rows: Sequence[Mapping[str, Any]]) -> str:
    return ", ".join(f"{_sum(rows, name):,} {name}" for name in ("lost", "repeated", "different"))


def _sum(rows: Sequence[Mapping[str, Any]], name: str) -> int:
    return sum(row[name] for row in rows)


def _table(first: str, columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> str:
    lines = [
        [first, *(_NAMES.get(column, column) for column in columns)],
        ["---", *("---:" for _ in columns)],
        *([str(row[first]), *(_shown(row[column]) for column in columns)] for row in rows),
    ]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _shown(value: float | str) -> str:
    return f"{value:,}" if isinstance(value, int) else str(value)
