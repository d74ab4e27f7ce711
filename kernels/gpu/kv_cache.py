"""Writes keys and values into their slots of pages; the layout and what happens to numbers that are not finite stand in
kernels/reference/fused_kv_write.py."""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls, allow-untyped-decorators
from typing import Final

import torch
import triton
import triton.language as tl
from torch import Tensor

from kernels.gpu.arithmetic import finite_or_zero, round_even
from kernels.reference.quantize import INT8_LEVELS, SMALLEST_MAX

_LEVELS: Final = tl.constexpr(float(INT8_LEVELS))
_SMALLEST_MAX: Final = tl.constexpr(SMALLEST_MAX)


def write_kv(key: Tensor, value: Tensor, kv_pages: Tensor, kv_scales: Tensor | None, slots: Tensor) -> None:
    rows, kv_heads, head_dim = key.shape
    if rows == 0:
        return
    write_heads[(rows, kv_heads)](
        key, value, kv_pages, kv_scales, slots, key.stride(0) // head_dim, value.stride(0) // head_dim,
        kv_heads=kv_heads, head_dim=head_dim, width=triton.next_power_of_2(head_dim), page_size=kv_pages.shape[3],
        limit=largest_kept(kv_pages.dtype), int8=kv_scales is not None, num_warps=1, enable_fp_fusion=False,
    )  # fmt: skip


def largest_kept(dtype: torch.dtype) -> float:
    """What a larger element is cut to, so that a page of `dtype` holds finite numbers only."""
    return float(INT8_LEVELS) if dtype == torch.int8 else torch.finfo(dtype).max


@triton.jit(do_not_specialize=["key_heads", "value_heads"])
def write_heads(
    key, value, kv_pages, kv_scales, slots, key_heads, value_heads,
    kv_heads: tl.constexpr, head_dim: tl.constexpr, width: tl.constexpr, page_size: tl.constexpr,
    limit: tl.constexpr, int8: tl.constexpr,
):  # fmt: skip
    """Program (row, KV head): its key, then its value."""
    row, head = tl.program_id(0), tl.program_id(1)
    slot = tl.load(slots + row).to(tl.int64)
    if slot < 0:
        return
    dim = tl.arange(0, width)
    inside = dim < head_dim
    key_at = (row.to(tl.int64) * key_heads + head) * head_dim + dim
    value_at = (row.to(tl.int64) * value_heads + head) * head_dim + dim
    k = tl.load(key + key_at, mask=inside, other=0.0).to(tl.float32)
    v = tl.load(value + value_at, mask=inside, other=0.0).to(tl.float32)
    store_head(k, kv_pages, kv_scales, head, slot, kv_heads, head_dim, width, page_size, limit, int8)
    store_head(v, kv_pages, kv_scales, kv_heads + head, slot, kv_heads, head_dim, width, page_size, limit, int8)


@triton.jit
def store_head(
    x, kv_pages, kv_scales, head, slot,
    kv_heads: tl.constexpr, head_dim: tl.constexpr, width: tl.constexpr, page_size: tl.constexpr,
    limit: tl.constexpr, int8: tl.constexpr,
):  # fmt: skip
    """x float32 [width], zeros behind head_dim, as `head` of slot int64; heads of values follow those of keys."""
    dim = tl.arange(0, width)
    at = (slot // page_size * (2 * kv_heads) + head) * page_size + slot % page_size
    kept = finite_or_zero(x)
    if int8:
        finite = tl.min((kept == x).to(tl.int32), 0)  # 1 where the whole head is
        kept = tl.where(finite == 1, kept, 0.0)
        largest = tl.max(tl.abs(kept), 0)
        inverse = tl.math.div_rn(limit + tl.zeros_like(largest), tl.maximum(largest, _SMALLEST_MAX))
        tl.store(kv_scales + at, tl.math.div_rn(largest, limit + tl.zeros_like(largest)))
        kept = round_even(kept * inverse)
    else:
        kept = tl.minimum(tl.maximum(kept, -limit), limit)
    tl.store(kv_pages + at * head_dim + dim, kept.to(kv_pages.dtype.element_ty), mask=dim < head_dim)
