"""Where measurements are kept, and what every benchmark's result begins with. Knows files, no engine."""

import json
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from benchmarks.comparison import merged
from benchmarks.figures import Figure
from benchmarks.machine import ROOT, commit, machine, today

FOLDER: Final = ROOT / "benchmarks" / "results"


def say(line: str) -> None:
    """To standard error: standard output is for tables."""
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


def model_path(given: Path | None) -> Path:
    """The file to measure with: as given, or the fleet's default model. Raises SetupError when that is not here yet."""
    if given is not None:
        return given
    # Here, so that a benchmark of the engine alone runs where the fleet's packages are not installed.
    from headrace import models, settings

    return models.resolve(models.DEFAULT_MODEL, settings.load().paths.models_dir).path


def header(model: Path) -> dict[str, Any]:
    return {"date": today(), "commit": commit(), "machine": machine(), "model": model.name}


def read(path: Path) -> dict[str, Any]:
    """What was written there; empty when nothing was."""
    if not path.exists():
        return {}
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def write(path: Path, result: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def write_figures(path: Path, model: Path, flags: Mapping[str, Any], figures: Iterable[Figure]) -> dict[str, Any]:
    """Written, and given back for its table."""
    result = {**header(model), "flags": dict(flags), "figures": [figure.record() for figure in figures]}
    write(path, result)
    return result


def write_comparison(
    path: Path, model: Path, flags: Mapping[str, Any], ours: Mapping[str, Any], peers: Mapping[str, Any]
) -> None:
    """Keeps what an earlier sitting with the same model said of other peers and workloads."""
    before = read(path)
    earlier = before.get("peers", {}) if before.get("model") == model.name else {}
    write(path, {**header(model), "flags": dict(flags), "ours": dict(ours), "peers": merged(earlier, peers)})
