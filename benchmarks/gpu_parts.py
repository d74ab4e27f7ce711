"""What a sitting on a GPU does, part by part: kernels checked, identity proved, speeds measured from cheap to dear.

Each part gives names to its measures and keeps what they find; how to measure is the business of the other modules.
"""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from types import MappingProxyType
from typing import Any, Final

from benchmarks import gpu_identity, gpu_kernels, gpu_measures
from benchmarks.gpu_sitting import Sitting
from benchmarks.machine import ROOT
from tests.unit.engine.cuda_backend.random_models import Subject

_ROWS: Final = (1, 8, 32, 256)


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
    one core after the other it would take most of ten minutes."""
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
