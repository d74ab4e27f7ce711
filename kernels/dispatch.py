"""Which implementation of an operation runs on which kind of device; knows names and functions, no formulas.

To add a kernel see docs/recipes/kernel.md; both tables here name it. kernels/cpu is not dispatched: it is one function.
"""

from collections.abc import Callable
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Final, TypeAlias

from kernels.reference import (
    activation,
    attention,
    embedding,
    float_twins,
    fused_activation,
    fused_kv_write,
    fused_norm,
    grouping,
    integer_matmul,
    kv_cache,
    norm,
    paged_attention,
    quantize,
    rope,
    sampling,
    scaled_matmul,
)

Kernel: TypeAlias = Callable[..., Any]

REFERENCE: Final[dict[str, Kernel]] = {
    "quantize_rows": quantize.quantize_rows,
    "quantize_groups": quantize.quantize_groups,
    "quantize_heads": quantize.quantize_heads,
    "int8_group_matmul": integer_matmul.int8_group_matmul,
    "float_group_matmul": integer_matmul.float_group_matmul,
    "rms_norm": norm.rms_norm,
    "silu_mul": activation.silu_mul,
    "gelu_mul": activation.gelu_mul,
    "rope": rope.rope,
    "write_pages": kv_cache.write_pages,
    "gather_pages": kv_cache.gather_pages,
    "attention": attention.attention,
    "paged_attention": paged_attention.paged_attention,
    "write_kv": fused_kv_write.write_kv,
    "qk_norm_rope_write_kv": fused_kv_write.qk_norm_rope_write_kv,
    "quantize_by_group": grouping.quantize_by_group,
    "add_rms_norm": fused_norm.add_rms_norm,
    "add_rms_norm_quantize": fused_norm.add_rms_norm_quantize,
    "gated": fused_activation.gated,
    "gated_quantize": fused_activation.gated_quantize,
    "scaled_int8_matmul": scaled_matmul.scaled_int8_matmul,
    "float_matmul": scaled_matmul.float_matmul,
    "embed": embedding.embed,
    "sample": sampling.sample,
    "float_rms_norm": float_twins.float_rms_norm,
    "float_silu_mul": float_twins.float_silu_mul,
    "float_gelu_mul": float_twins.float_gelu_mul,
    "float_attention": float_twins.float_attention,
}

# Triton kernels by name, as "module:function": their modules are loaded when first used, since only a GPU needs them.
GPU: Final[dict[str, str]] = {
    "quantize_by_group": "kernels.gpu.quantize:quantize_by_group",
    "add_rms_norm": "kernels.gpu.norm:add_rms_norm",
    "add_rms_norm_quantize": "kernels.gpu.norm:add_rms_norm_quantize",
    "gated": "kernels.gpu.activation:gated",
    "gated_quantize": "kernels.gpu.activation:gated_quantize",
    "scaled_int8_matmul": "kernels.gpu.int8_matmul:scaled_int8_matmul",
    "float_matmul": "kernels.gpu.bf16_matmul:float_matmul",
    "embed": "kernels.gpu.embedding:embed",
    "sample": "kernels.gpu.sampler:sample",
    "paged_attention": "kernels.gpu.attention:paged_attention",
    "write_kv": "kernels.gpu.kv_cache:write_kv",
    "qk_norm_rope_write_kv": "kernels.gpu.rope:qk_norm_rope_write_kv",
}

# Plain torch runs on every device. A faster kernel replaces its line in the table of its kind.
TABLES: Final[dict[str, dict[str, str]]] = {"cpu": {}, "cuda": GPU}


@cache
def kernel(operation: str, device_kind: str) -> Kernel:
    """The implementation of `operation` for tensors on `device_kind` ("cpu", "cuda")."""
    name = TABLES[device_kind].get(operation)
    if name is None or not _has_triton():
        return REFERENCE[operation]
    module, _, function = name.partition(":")
    found: Kernel = getattr(import_module(module), function)
    return found


@cache
def _has_triton() -> bool:
    return find_spec("triton") is not None


def table_names(device_kind: str) -> dict[str, str]:
    """Operation -> qualified name of what runs, for the numerics digest."""
    running = {name: kernel(name, device_kind) for name in sorted(REFERENCE)}
    return {name: f"{run.__module__}.{run.__qualname__}" for name, run in running.items()}
