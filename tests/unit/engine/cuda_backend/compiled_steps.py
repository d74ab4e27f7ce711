"""Compiles every kernel of whole steps for a GPU that is not here, exactly as the runner launches them.

    python -m tests.unit.engine.cuda_backend.compiled_steps [compute capability ...] [--subject NAME]      a minute each

It fails where a kernel does not compile, asks for more shared memory than a block may have, or contracts a multiply and
an add; the latter matters to exact numerics alone. Runs without TRITON_INTERPRET and without a device.
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from typing import Any, Final
from unittest import mock

import torch
from torch import Tensor
from triton.compiler import compile as compile_kernel

from engine.cuda_backend.runner import CudaRunner
from engine.cuda_backend.step_memory import Bucket
from tests.unit.engine.cuda_backend.random_models import SUBJECTS, Knobs, Subject, model, one_layer
from tests.unit.kernels.gpu import compiled
from tests.unit.kernels.gpu.compiled import assembly, launches_of

# Bytes that a block may have: 227 KiB on Hopper, 163 on Ampere's large ones, 99 elsewhere.
_SHARED: Final = {90: 227 << 10, 80: 163 << 10, 100: 227 << 10}
_LEAST_SHARED: Final = 99 << 10
_STEPS: Final = (
    Bucket(1, 1, 64, 1),
    Bucket(4, 4, 129, 4),
    Bucket(16, 16, 64, 16),
    Bucket(64, 64, 64, 64),
    Bucket(256, 4, 64, 4),
    Bucket(256, 64, 64, 16),
)


def wrong_launches(subject: Subject, numerics: str, capability: int) -> Iterator[str]:
    """What is wrong with any launch of the steps, one line each."""
    runner = model(subject, numerics, Knobs(64, 256, 300, 2064, warms=False), torch.device("cpu")).model
    assert isinstance(runner, CudaRunner)

    def steps() -> None:
        with torch.inference_mode():
            for bucket in _STEPS:
                runner._run(bucket, ())

    seen: set[str] = set()
    for kernel, given, options in launches_of(steps):
        key = repr((kernel.__name__, {name: _kind(value) for name, value in given.items()}, options))
        if key in seen:
            continue
        seen.add(key)
        why = _why_wrong(kernel, given, options, capability, numerics)
        sys.stdout.write(f"sm_{capability} {numerics} {kernel.__name__}: {why or 'sound'}\n")
        sys.stdout.flush()
        if why:
            yield f"sm_{capability} {numerics} {kernel.__name__}: {why}"


def _why_wrong(kernel: Any, given: dict[str, Any], options: dict[str, Any], capability: int, numerics: str) -> str:
    built: list[Any] = []

    def kept(*args: Any, **kwargs: Any) -> Any:
        built.append(compile_kernel(*args, **kwargs))
        return built[-1]

    try:
        with mock.patch.object(compiled, "compile_kernel", kept):
            text = assembly(kernel, given, options, capability)
    except Exception as error:  # noqa: BLE001 - the compiler's own words are the finding
        return f"{type(error).__name__}: {error}"[:500]
    shared, most = built[0].metadata.shared, _SHARED.get(capability, _LEAST_SHARED)
    if shared > most:
        return f"{shared} bytes of shared memory, where a block has {most}"
    fused = compiled._FUSED.findall(text) if numerics == "exact" else []
    return f"fused: {fused[:3]}" if fused else ""


def _kind(value: Any) -> Any:
    """What a compilation depends on: types and constants."""
    return str(value.dtype) if isinstance(value, Tensor) else value


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.unit.engine.cuda_backend.compiled_steps")
    parser.add_argument("capabilities", type=int, nargs="*", default=[90], metavar="capability", help="90 by default")
    parser.add_argument("--subject", choices=SUBJECTS, default="Qwen3-0.6B")
    given = parser.parse_args(arguments)
    subject = one_layer(SUBJECTS[given.subject])
    wrong = [
        line
        for capability in given.capabilities
        for numerics in ("exact", "bf16")
        for line in wrong_launches(subject, numerics, capability)
    ]
    sys.stdout.write("\n".join(wrong) + "\n" if wrong else "every launch is sound\n")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
