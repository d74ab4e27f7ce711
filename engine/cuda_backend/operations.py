"""The operations that a decoder step is made of, as one table of kernels has them; knows names, no tensors."""

from dataclasses import dataclass, fields

from kernels.dispatch import Kernel, kernel


@dataclass(frozen=True, slots=True)
class Operations:
    """Signatures and formulas stand in kernels/ops.py under the same names."""

    embed: Kernel
    add_rms_norm: Kernel
    add_rms_norm_quantize: Kernel
    quantize_by_group: Kernel
    gated: Kernel
    gated_quantize: Kernel
    scaled_int8_matmul: Kernel
    float_matmul: Kernel
    qk_norm_rope_write_kv: Kernel
    paged_attention: Kernel
    sample: Kernel


def operations(kind: str) -> Operations:
    """Those of the table `kind`: "cuda" for Triton's (interpreted where TRITON_INTERPRET says so), "cpu" for plain
    torch, the twin that runs on every device."""
    return Operations(**{field.name: kernel(field.name, kind) for field in fields(Operations)})
