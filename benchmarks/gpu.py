"""The engine on a GPU: kernels checked, identity proved, then measured from cheap to dear, against its bars.

    python -m benchmarks.gpu [--part kernels,identity] [--seconds 540] [--output FILE]
    TRITON_INTERPRET=1 python -m benchmarks.gpu --tiny          the same road on a CPU; nothing is kept

Needs torch, triton, numpy, safetensors and transformers, and no network. Each part runs in a process of its own, so
that one that breaks the device's context stops no other.
"""

import argparse
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from benchmarks import gpu_kernels, results
from benchmarks.arguments import names
from benchmarks.gpu_parts import PARTS
from benchmarks.gpu_sitting import Sitting
from benchmarks.gpu_table import bars_table
from benchmarks.machine import ROOT, commit, machine, today
from benchmarks.results import say


def header(device: torch.device) -> dict[str, Any]:
    on_cuda = device.type == "cuda"
    return {
        "date": today(),
        "commit": commit(),
        "machine": machine(),
        "device": torch.cuda.get_device_name(device) if on_cuda else "interpreter",
        "versions": {name: version(name) for name in ("torch", "triton", "numpy", "transformers")},
        "cuda": torch.version.cuda if on_cuda else None,
    }


def run_parts(parts: Sequence[str], path: Path, seconds: float) -> None:
    """Each in a process of its own; the checks of kernels are taken up again where a process ended."""
    until = time.monotonic() + seconds
    for part in parts:
        for _ in range(len(gpu_kernels.CASES) if part == "kernels" else 1):
            left = until - time.monotonic()
            if left <= 0:
                say(f"{part}: no time is left for it; ask for it by --part")
                break
            line = [sys.executable, "-m", "benchmarks.gpu", "--within", "--part", part, "--output", str(path)]
            try:
                ended = subprocess.run(line, cwd=ROOT, check=False, timeout=left).returncode
            except subprocess.TimeoutExpired:
                ended = 0
                say(f"{part}: its time was up")
            if ended == 0:
                break
            say(f"{part}: its process ended with {ended}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 1 where there is no device to measure, or where something is wrong at tiny shapes."""
    given = _parser().parse_args(arguments)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.type == "cpu" and not given.tiny:
        say("no CUDA device is to be had; TRITON_INTERPRET=1 with --tiny runs the same road on a CPU")
        return 1
    head = header(device)
    path: Path | None = given.output or results.FOLDER / f"gpu-{_file_name(head['device'])}.json"
    if given.tiny:
        path = given.output
    before = results.read(path) if path is not None else {}
    sitting = Sitting(device, given.tiny, path, {**before, **head})
    if given.within or given.tiny:
        for part in given.part:
            PARTS[part](sitting)
    else:
        assert path is not None
        if "kernels" in given.part:
            sitting.found.get("parts", {}).pop("kernels", None)
        results.write(path, sitting.found)
        run_parts(given.part, path, given.seconds)
        sitting.found = results.read(path)
    if given.tiny:
        return _say_whether_all_ran(sitting.found)
    if not given.within:
        print(bars_table(sitting.found))
    return 0


def _say_whether_all_ran(found: Mapping[str, Any]) -> int:
    """Of tiny shapes nothing is worth a table but that they ran, and were right."""
    entries = {f"{part} {name}": entry for part, named in found["parts"].items() for name, entry in named.items()}
    wrong = [
        name for name, entry in entries.items() if "error" in entry or entry.get("failed") or entry.get("differing")
    ]
    print(f"{len(entries)} measures ran; wrong: {', '.join(wrong) or 'none'}")
    return int(bool(wrong))


def _file_name(device: str) -> str:
    return "-".join("".join(each if each.isalnum() else " " for each in device.lower()).split())


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--part", type=names(PARTS), default=list(PARTS), help=", ".join(PARTS))
    parser.add_argument("--seconds", type=float, default=540.0, help="for all parts together")
    parser.add_argument("--output", type=Path, help="default: benchmarks/results/gpu-<device>.json")
    parser.add_argument("--tiny", action="store_true", help="tiny shapes, in this process, on whatever there is")
    parser.add_argument("--within", action="store_true", help=argparse.SUPPRESS)
    return parser


if __name__ == "__main__":
    sys.exit(main())
