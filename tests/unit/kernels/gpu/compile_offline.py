"""Compiles the attention kernels for GPUs that are not here, for heads of every width, and looks at what they take.

    python -m tests.unit.kernels.gpu.compile_offline [compute capability ...]        90 by default, about a minute

It fails where one contracts a product and a sum, spills registers or needs more shared memory than there is. The
interpreter proves logic; this proves that the compiler takes the kernels, and keeps the roundings that the reference
has. It needs no device; nothing here runs a kernel.
"""

import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from kernels.gpu import attention_programs, kv_cache, rope

WARP: Final = 32
SHARED_BYTES: Final = {80: 163 << 10, 90: 227 << 10}  # that a block may have
# A word or four for addresses is no sign of anything; accumulators that do not fit take hundreds. Tiles are chosen for
# Hopper: on Ampere a few spill some of theirs, which costs time and no bits.
SPILLED_BYTES: Final = {80: 256, 90: 64}
COUNTS: Final = {"rows", "sequences", "table_width", "segments", "query_heads", "window", "key_heads", "value_heads"}


@dataclass(frozen=True, slots=True)
class Build:
    """One specialisation: the element types of pointers by argument, compile-time constants, warps and stages."""

    name: str
    kernel: Any
    pointers: Mapping[str, str]
    constants: Mapping[str, object]
    warps: int = 1
    stages: int = 3


def builds() -> Iterator[Build]:
    """Every tile that attention chooses for its usual shapes, and the writes of pages."""
    for pages in ("i8", "bf16"):
        int8 = pages == "i8"
        cache = {"kv_pages": pages, "kv_scales": "fp32"} if int8 else {"kv_pages": pages}
        absent = {} if int8 else {"kv_scales": None}
        sizes = {"kv_heads": 8, "page_size": 16, "int8": int8, **absent}
        for head_dim, lines, warps, stages in (
            (64, 16, 4, 3),
            (64, 64 if int8 else 32, 4, 3),
            (80, 16, 4, 3),
            (128, 16, 4, 3),
            (128, 64 if int8 else 32, 8, 3),
            (256, 16, 4, 2),
            (256, 32, 8, 2),
        ):
            for splits in (False, True):
                yield Build(
                    f"attend {pages} {head_dim} wide, {lines} lines, {'split' if splits else 'whole'}",
                    attention_programs.attend_segments,
                    {"query": "bf16", "row_starts": "i32", "context_lens": "i32", "block_tables": "i32"}
                    | {"out": "bf16", "workspace": "fp32"}
                    | cache,
                    sizes | _shape(head_dim) | {"lines": lines, "splits_keys": splits, "widen": False},
                    warps,
                    stages,
                )
        writes = sizes | {"head_dim": 80, "width": 128, "limit": 127.0}
        yield Build(
            f"write {pages}", kv_cache.write_heads, {"key": "bf16", "value": "bf16", "slots": "i64"} | cache, writes
        )
        yield Build(
            f"norm, rotate, write {pages}",
            rope.norm_rope_write,
            {"qkv": "bf16", "positions": "i64", "cos": "fp32", "sin": "fp32", "slots": "i64", "out": "bf16"}
            | {"query_weight": "fp32", "key_weight": "fp32"}
            | cache,
            writes | {"heads": 32, "eps": 1e-6, "steps": 2.0**20},
        )
    yield Build(
        "merge segments",
        attention_programs.merge_segments,
        {"workspace": "fp32", "row_starts": "i32", "context_lens": "i32", "out": "bf16"},
        _shape(128),
    )


def _shape(head_dim: int) -> dict[str, object]:
    width = max(64, triton.next_power_of_2(head_dim))
    return {"heads": 32, "head_dim": head_dim, "width": width, "sequence_slots": 16}


def complaints(build: Build, capability: int) -> list[str]:
    names = build.kernel.arg_names
    kinds = {name: f"*{kind}" for name, kind in build.pointers.items()} | {"score_factor": "fp32"}
    signature = {name: kinds.get(name, "i32" if name in COUNTS else "constexpr") for name in names}
    source = ASTSource(
        fn=build.kernel,
        signature=signature,
        constexprs={(names.index(name),): value for name, value in build.constants.items()},
        attrs={(i,): [["tt.divisibility", 16]] for i, name in enumerate(names) if name in build.pointers},
    )
    options = {"num_warps": build.warps, "num_stages": build.stages, "enable_fp_fusion": False}
    compiled = triton.compile(source, target=GPUTarget("cuda", capability, WARP), options=options)
    found = []
    if "fma.rn.f32" in compiled.asm["ptx"]:
        found.append("a product and a sum are contracted")
    if compiled.metadata.shared > SHARED_BYTES[capability]:
        found.append(f"{compiled.metadata.shared} bytes of shared memory")
    spilled = _spilled(compiled.asm["cubin"])
    if spilled > SPILLED_BYTES[capability]:
        found.append(f"{spilled} bytes of registers spilled")
    return found


def _spilled(cubin: bytes) -> int:
    """The stack of the kernel, by the tool that triton brings along."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
        shown = subprocess.run([tool, "-res-usage", file.name], capture_output=True, text=True, check=True)
    return sum(int(size) for size in re.findall(r"STACK:(\d+)", shown.stdout + shown.stderr))


def main() -> int:
    failed = 0
    for capability in map(int, sys.argv[1:] or ["90"]):
        for build in builds():
            found = complaints(build, capability)
            failed += bool(found)
            sys.stdout.write(f"sm_{capability} {build.name}: {', '.join(found) or 'fine'}\n")
            sys.stdout.flush()
    return min(failed, 1)


if __name__ == "__main__":
    raise SystemExit(main())
