"""The engine on a GPU: kernels checked, identity proved, then measured from cheap to dear, against its bars.

    python -m benchmarks.gpu [--part kernels,identity] [--seconds 540] [--output FILE]
    TRITON_INTERPRET=1 python -m benchmarks.gpu --tiny          the same road on a CPU; nothing is kept

Needs torch, triton, numpy, safetensors and transformers, and no network. Each part runs in a process of its own, so
that one that breaks the device's context stops no other; everything is written down as soon as it is known, beside
what earlier sittings on the same device found.
"""

import argparse
import gc
import json
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import torch

from benchmarks import gpu_identity, gpu_kernels, gpu_measures, results
from benchmarks.arguments import names
from benchmarks.gpu_shapes import LLAMA_8B, QWEN_06B, TINY, Subject
from benchmarks.gpu_table import bars_table
from benchmarks.machine import ROOT, commit, machine, today
from benchmarks.results import say

_BROKEN_CONTEXT: Final = 3
_ROWS: Final = (1, 8, 32, 256)
_REQUESTS: Final = (256, 100, 1024)
_TINY_REQUESTS: Final = (2, 2, 3)


@dataclass(slots=True)
class Sitting:
    """One run on one device, and the file of what was found."""

    device: torch.device
    tiny: bool
    path: Path | None
    found: dict[str, Any] = field(default_factory=dict)

    @property
    def subjects(self) -> tuple[Subject, ...]:
        return (TINY,) if self.tiny else (QWEN_06B, LLAMA_8B)

    @property
    def requests(self) -> tuple[int, int, int]:
        """How many, and the least and most tokens of each, in and out."""
        return _TINY_REQUESTS if self.tiny else _REQUESTS

    def keep(self, part: str, name: str, value: Mapping[str, Any]) -> None:
        self.found.setdefault("parts", {}).setdefault(part, {})[name] = {**value, "commit": commit(), "date": today()}
        say(f"{part}: {name}: {json.dumps(value)[:300]}")
        if self.path is not None:
            results.write(self.path, self.found)

    def attempt(self, part: str, name: str, measure: Callable[[], Mapping[str, Any]]) -> None:
        """Keeps what was measured, or why it was not."""
        try:
            value = measure()
        except Exception as failure:  # noqa: BLE001 - is written down in its place, and the next measure is tried
            value = {"error": f"{type(failure).__name__}: {failure}"[:500]}
        self.keep(part, name, value)
        gc.collect()  # a runner and its host's part know each other
        if self.device.type == "cuda":
            try:
                torch.cuda.synchronize()
                torch.cuda.empty_cache()
            except RuntimeError as failure:
                say(f"the device's context is broken: {failure}")
                sys.exit(_BROKEN_CONTEXT)


def kernels(sitting: Sitting) -> None:
    """Goes on behind the operations that are known, so that it can be started again."""
    known = sitting.found.get("parts", {}).get("kernels", {})
    for operation in gpu_kernels.CASES:
        if operation not in known:

            def checked(name: str = operation) -> dict[str, Any]:
                findings = list(gpu_kernels.check(name, sitting.device, tiny=sitting.tiny))
                return {"cases": len(findings), "failed": [asdict(each) for each in findings if not each.sound]}

            sitting.attempt("kernels", operation, checked)


def identity(sitting: Sitting) -> None:
    for numerics in ("exact",) if sitting.tiny else ("exact", "bf16"):

        def tried(policy: str = numerics) -> dict[str, Any]:
            ways = [asdict(each) for each in gpu_identity.ways(sitting.device, policy, tiny=sitting.tiny)]
            return {"ways": ways, "differing": sum(way["differing"] for way in ways)}

        sitting.attempt("identity", numerics, tried)
    if not sitting.tiny:
        sitting.attempt("identity", "schedules", lambda: asdict(gpu_identity.random_schedules()))


def compiled(sitting: Sitting) -> None:
    """Compiles what `single` and `throughput` will launch into Triton's cache, each model in a process of its own: on
    one core after the other it would take most of a short lease."""
    running = {}
    for subject in sitting.subjects:
        for numerics in ("exact", "bf16"):
            line = [sys.executable, "-m", "benchmarks.gpu_compiling", subject.name, numerics, str(sitting.requests[0])]
            running[f"{subject.name} {numerics}"] = subprocess.Popen(line, cwd=ROOT)
    began = time.perf_counter()
    for name, process in running.items():

        def waited(process: subprocess.Popen[bytes] = process) -> dict[str, Any]:
            if code := process.wait():
                raise RuntimeError(f"it ended with {code}")
            return {"seconds": time.perf_counter() - began}

        sitting.attempt("compiled", name, waited)


def copy(sitting: Sitting) -> None:
    sitting.attempt("copy", "copy", lambda: _speed(gpu_measures.copying(sitting.device, tiny=sitting.tiny)))


def products(sitting: Sitting) -> None:
    for subject in sitting.subjects[-1:]:
        for rows in (1,) if sitting.tiny else _ROWS:
            for outputs, inputs in gpu_measures.layer_products(subject)[: 1 if sitting.tiny else None]:
                for kind in ("int8", "bf16", "torch"):

                    def timed(kind: str = kind, rows: int = rows, outputs: int = outputs, inputs: int = inputs) -> Any:
                        return _speed(gpu_measures.product(kind, rows, outputs, inputs, sitting.device))

                    sitting.attempt("products", f"{kind} {rows} x {inputs} x {outputs}", timed)


def attention(sitting: Sitting) -> None:
    sizes = ((1, 20),) if sitting.tiny else ((1, 4000), (8, 4000), (64, 2048), (256, 1024))
    for numerics in ("exact", "bf16"):
        for sequences, context in sizes:

            def timed(policy: str = numerics, count: int = sequences, keys: int = context) -> Any:
                subject = sitting.subjects[-1]
                return _speed(gpu_measures.decode_attention(subject, policy, count, keys, sitting.device))

            sitting.attempt("attention", f"{numerics}, {sequences} x {context}", timed)


def single(sitting: Sitting) -> None:
    lengths = {"prompt": 2, "tokens": 2} if sitting.tiny else {"prompt": 128, "tokens": 200}
    for subject in sitting.subjects:
        for numerics in ("exact", "bf16"):

            def timed(subject: Subject = subject, policy: str = numerics) -> Any:
                return _speed(gpu_measures.decoding_alone(subject, policy, sitting.device, **lengths))

            sitting.attempt("single", f"{subject.name} {numerics}", timed)


def throughput(sitting: Sitting) -> None:
    for subject in sitting.subjects:
        for numerics in ("exact", "bf16"):

            def timed(subject: Subject = subject, policy: str = numerics) -> Any:
                asks = gpu_measures.requests(*sitting.requests, subject.shape.vocab_size)
                return _tokens(asdict(gpu_measures.throughput(subject, policy, asks, sitting.device)))

            sitting.attempt("throughput", f"{subject.name} {numerics}", timed)


def peer(sitting: Sitting) -> None:
    """transformers, in a process of its own: its cache takes what memory there is."""
    for subject in sitting.subjects:

        def timed(subject: Subject = subject) -> Any:
            count, shortest, longest = map(str, sitting.requests)
            command = ["--count", count, "--shortest", shortest, "--longest", longest, "--subject", subject.name]
            line = [sys.executable, "-m", "benchmarks.gpu_transformers", *command]
            done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=False)
            if done.returncode:
                raise RuntimeError(done.stderr.strip()[-400:])
            return _tokens(json.loads(done.stdout.strip().splitlines()[-1]))

        sitting.attempt("peer", subject.name, timed)


PARTS: Final[Mapping[str, Callable[[Sitting], None]]] = MappingProxyType(
    {part.__name__: part for part in (kernels, identity, copy, compiled, products, attention, single, throughput, peer)}
)


def _speed(speed: gpu_measures.Speed) -> dict[str, Any]:
    return {"seconds": speed.seconds, "bytes": speed.nbytes, "bytes_per_second": speed.bytes_per_second}


def _tokens(found: Mapping[str, Any]) -> dict[str, Any]:
    return {**found, "tokens_per_second": found["tokens"] / found["seconds"]}


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
