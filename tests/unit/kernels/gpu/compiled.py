"""Compiles kernels for GPUs that are not here, exactly as their launchers ask for them, and looks at the instructions.

    python -m tests.unit.kernels.gpu.compiled [compute capability ...]        90 by default, about a minute

The interpreter accepts what the compiler may refuse, and fuses nothing where the compiler might; this needs triton's
own assembler and no device. It fails where a kernel does not compile, where a multiply and an add became one
instruction, and where the tensor core instruction of a float product depends on the number of rows.
"""

import re
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final
from unittest import mock

import torch
from torch import Tensor
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from triton.compiler import compile as compile_kernel
from triton.runtime.jit import JITFunction, mangle_type

from kernels.gpu import activation, attention, bf16_matmul, embedding, int8_matmul, norm, quantize, rope, sampler
from kernels.reference.paged_attention import attention_workspace
from kernels.reference.sampling_table import Sampled
from tests.unit.kernels.gpu.sampling_rows import ROWS, buffers, table_of

_WARP: Final = 32
_ALIGNMENT: Final = 16
_TENSOR_CORE: Final = re.compile(r"\b(?:wgmma\.mma_async|mma\.sync)[\w.]*\.m\d+n\d+k\d+\S*")
_FUSED: Final = re.compile(r"\bfma\.\w+\.f(?:32|64)\S*")


@dataclass(slots=True)
class Launches:
    """What launchers asked for: a kernel, its arguments by name, its options."""

    found: list[tuple[Any, dict[str, Any], dict[str, Any]]] = field(default_factory=list)

    def record(self, kernel: Any, *args: Any, grid: object, warmup: bool, **kwargs: Any) -> None:
        given = dict(zip(kernel.arg_names, args, strict=False))
        options = {name: value for name, value in kwargs.items() if name not in kernel.arg_names}
        given.update((name, value) for name, value in kwargs.items() if name in kernel.arg_names)
        self.found.append((kernel, given, options))


def launches_of(work: Callable[[], None]) -> list[tuple[Any, dict[str, Any], dict[str, Any]]]:
    launches = Launches()

    def run(kernel: Any, *args: Any, **kwargs: Any) -> None:
        launches.record(kernel, *args, **kwargs)

    with mock.patch.object(JITFunction, "run", new=run):
        work()
    return launches.found


def assembly(kernel: Any, given: dict[str, Any], options: dict[str, Any], capability: int) -> str:
    """PTX, after the assembler has accepted it."""
    signature, constants, attributes = {}, {}, {}
    for index, parameter in enumerate(kernel.params):
        value = given[parameter.name]
        if parameter.is_constexpr:
            signature[parameter.name], constants[parameter.name] = "constexpr", value
            continue
        signature[parameter.name] = mangle_type(value)
        address = value.data_ptr() if isinstance(value, Tensor) else value
        if isinstance(address, int) and not parameter.do_not_specialize and address % _ALIGNMENT == 0:
            attributes[(index,)] = [["tt.divisibility", _ALIGNMENT]]
    source = ASTSource(fn=kernel, signature=signature, constexprs=constants, attrs=attributes)
    built = compile_kernel(source, target=GPUTarget("cuda", capability, _WARP), options=options)
    return str(built.asm["ptx"])


def products(rows: int) -> None:
    """A layer's products over the widths of a model with 8 billion weights."""
    x, weight, out = torch.empty(rows, 4096), torch.empty(6144, 4096), torch.empty(rows, 6144)
    whole, columns = x.to(torch.int8), torch.empty(6144)
    for group in (64, 4096):
        scale = torch.empty(rows, 4096 // group)
        int8_matmul.scaled_int8_matmul(whole, scale, weight.to(torch.int8), columns, group, out, columns, out)


def float_products(rows: int) -> None:
    x, weight = torch.empty(rows, 4096, dtype=torch.bfloat16), torch.empty(6144, 4096, dtype=torch.bfloat16)
    out = torch.empty(rows, 6144, dtype=torch.bfloat16)
    bf16_matmul.float_matmul(x, weight, out, residual=out)


def rows_alone() -> None:
    """Norms, activations, quantisation and the embedding."""
    x, out = torch.empty(2, 4096, dtype=torch.bfloat16), torch.empty(2, 4096, dtype=torch.int8)
    scale, stream = torch.empty(2, 64), torch.empty(2, 4096)
    norm.add_rms_norm_quantize(x, stream, stream[0], 1e-5, 64, out, scale)
    norm.add_rms_norm(x, None, stream[0], 1e-5, x)
    quantize.quantize_by_group(x, 64, out, scale)
    for kind in ("silu", "gelu_tanh"):
        activation.gated_quantize(torch.empty(2, 8192), kind, 64, out, scale)
        activation.gated(torch.empty(2, 8192), kind, x)
    embedding.embed(torch.zeros(2, dtype=torch.int64), out, stream[0], 1.0, x)


def attending(rows: int, dtype: torch.dtype) -> None:
    """Rotation, KV write and attention of `rows` rows of one sequence, over pages of one type."""
    qkv, positions = torch.empty(rows, 48, 128, dtype=torch.bfloat16), torch.arange(rows)
    pages = torch.empty(64, 2, 8, 16, 128, dtype=dtype)
    scales = torch.empty(64, 2, 8, 16) if dtype == torch.int8 else None
    angles, out = torch.empty(1024, 64), torch.empty(rows, 32, 128, dtype=torch.bfloat16)
    rope.qk_norm_rope_write_kv(qkv, positions, angles, angles, None, None, 1e-5, pages, scales, positions, out)
    starts, lengths = torch.tensor([0, rows], dtype=torch.int32), torch.tensor([rows], dtype=torch.int32)
    tables, workspace = torch.zeros(1, 64, dtype=torch.int32), torch.empty(attention_workspace(rows, 32, 128, 1024))
    attention.paged_attention(out, pages, scales, starts, lengths, tables, 0.1, 0, out.clone(), workspace)


def sampling() -> None:
    vocab = 151_936
    scores, sampled = buffers(len(ROWS), vocab)
    assert isinstance(sampled, Sampled)
    sampler.sample(torch.empty(len(ROWS), vocab, dtype=torch.bfloat16), table_of(ROWS, vocab), scores, sampled)


def check(capability: int) -> list[str]:
    """What is wrong for one kind of device."""
    wrong: list[str] = []
    exact = [launch for rows in (1, 4, 16, 32, 128, 200) for launch in launches_of(lambda rows=rows: products(rows))]  # type: ignore[misc]
    exact += launches_of(rows_alone) + launches_of(sampling)
    for dtype in (torch.int8, torch.bfloat16):
        for rows in (1, 512):
            exact += launches_of(lambda rows=rows, dtype=dtype: attending(rows, dtype))  # type: ignore[misc]
    for launch in exact:
        text = assembly(*launch, capability)
        say(capability, launch[0].__name__, text)
        if fused := _FUSED.findall(text):
            wrong.append(f"sm_{capability} {launch[0].__name__}: {Counter(fused)}")
    shapes = set()
    for rows in (1, 64, 1000):
        for launch in launches_of(lambda rows=rows: float_products(rows)):  # type: ignore[misc]
            text = assembly(*launch, capability)
            say(capability, f"{launch[0].__name__} of {rows} rows", text)
            shapes.add(tuple(sorted(set(_TENSOR_CORE.findall(text)))))
    if len(shapes) != 1:
        wrong.append(f"sm_{capability}: the instruction of a float product depends on rows: {shapes}")
    return wrong


def say(capability: int, name: str, text: str) -> None:
    sys.stdout.write(f"sm_{capability} {name}: {dict(Counter(_TENSOR_CORE.findall(text)))}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    failures = [line for each in sys.argv[1:] or ["90"] for line in check(int(each))]
    sys.exit("\n".join(failures))
