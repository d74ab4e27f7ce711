"""Norm, rotation and the KV write of one head in one program; knows heads side by side in a row of q, k and v.

Each piece has the bits of its reference: the norm's sum of squares is one of whole numbers, here in int64 (see
kernels/reference/norm.py), the rotation two products and a sum (kernels/reference/rope.py).
"""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls, allow-untyped-decorators
from typing import Final

import torch
import triton
import triton.language as tl
from torch import Tensor

from kernels.gpu.arithmetic import round_even
from kernels.gpu.kv_cache import largest_kept, store_head
from kernels.reference.norm import grid_steps
from kernels.reference.quantize import SMALLEST_MAX

_SMALLEST_MAX: Final = tl.constexpr(SMALLEST_MAX)


def qk_norm_rope_write_kv(
    qkv: Tensor,
    positions: Tensor,
    cos: Tensor,
    sin: Tensor,
    query_weight: Tensor | None,
    key_weight: Tensor | None,
    eps: float,
    kv_pages: Tensor,
    kv_scales: Tensor | None,
    slots: Tensor,
    out: Tensor | None = None,
) -> Tensor:
    rows, all_heads, head_dim = qkv.shape
    kv_heads, page_size = kv_pages.shape[2:4]
    heads = all_heads - 2 * kv_heads
    if out is None:
        out = torch.empty(rows, heads, head_dim, dtype=qkv.dtype, device=qkv.device)
    if rows:
        norm_rope_write[(rows, all_heads)](
            qkv, positions, cos, sin, query_weight, key_weight, kv_pages, kv_scales, slots, out,
            heads=heads, kv_heads=kv_heads, head_dim=head_dim, width=triton.next_power_of_2(head_dim),
            page_size=page_size, eps=eps, steps=grid_steps(head_dim), limit=largest_kept(kv_pages.dtype),
            int8=kv_scales is not None, num_warps=1, enable_fp_fusion=False,
        )  # fmt: skip
    return out


@triton.jit
def norm_rope_write(
    qkv, positions, cos, sin, query_weight, key_weight, kv_pages, kv_scales, slots, out,
    heads: tl.constexpr, kv_heads: tl.constexpr, head_dim: tl.constexpr, width: tl.constexpr, page_size: tl.constexpr,
    eps: tl.constexpr, steps: tl.constexpr, limit: tl.constexpr, int8: tl.constexpr,
):  # fmt: skip
    """Program (row, head of q, k or v, in the order of the row). eps as a constant keeps its float64 bits."""
    row, head = tl.program_id(0), tl.program_id(1)
    slot = tl.load(slots + row).to(tl.int64)
    if slot < 0:
        return
    x = qkv + (row.to(tl.int64) * (heads + 2 * kv_heads) + head) * head_dim
    if head < heads:
        y = _turned(x, positions + row, cos, sin, query_weight, head_dim, width, eps, steps)
        dim = tl.arange(0, width)
        row_out = out + (row.to(tl.int64) * heads + head) * head_dim
        tl.store(row_out + dim, y.to(out.dtype.element_ty), mask=dim < head_dim)
    elif head < heads + kv_heads:
        y = _turned(x, positions + row, cos, sin, key_weight, head_dim, width, eps, steps)
        store_head(y, kv_pages, kv_scales, head - heads, slot, kv_heads, head_dim, width, page_size, limit, int8)
    else:
        dim = tl.arange(0, width)
        y = tl.load(x + dim, mask=dim < head_dim, other=0.0).to(tl.float32)
        store_head(y, kv_pages, kv_scales, head - heads, slot, kv_heads, head_dim, width, page_size, limit, int8)


@triton.jit
def _turned(
    head, position, cos, sin, weight,
    head_dim: tl.constexpr, width: tl.constexpr, eps: tl.constexpr, steps: tl.constexpr,
):  # fmt: skip
    """float32 [width]: the head at a pointer, normed if it has a weight: y = x * cos + swap_halves(x) * sin."""
    half: tl.constexpr = head_dim // 2
    dim = tl.arange(0, width)
    inside = dim < head_dim
    other_dim = tl.where(dim < half, dim + half, dim - half)
    x = tl.load(head + dim, mask=inside, other=0.0).to(tl.float32)
    other = tl.load(head + other_dim, mask=inside, other=0.0).to(tl.float32)
    if weight is not None:
        inverse = _inverse_rms(x, head_dim, eps, steps)
        x = x * inverse * tl.load(weight + dim, mask=inside, other=0.0).to(tl.float32)
        other = other * inverse * tl.load(weight + other_dim, mask=inside, other=0.0).to(tl.float32)
    angle = tl.load(position).to(tl.int64) * half + dim % half
    c = tl.load(cos + angle, mask=inside, other=0.0)
    s = tl.load(sin + angle, mask=inside, other=0.0)
    return x * c + other * tl.where(dim < half, -s, s)


@triton.jit
def _inverse_rms(x, width: tl.constexpr, eps: tl.constexpr, steps: tl.constexpr):
    """1 / sqrt(mean of squares + eps), the mean taken on a grid of max|x| / steps."""
    largest = tl.maximum(tl.max(tl.abs(x), 0), _SMALLEST_MAX)
    on_grid = round_even(x * tl.math.div_rn(steps + tl.zeros_like(largest), largest)).to(tl.int64)
    step = largest.to(tl.float64) / steps
    mean = tl.sum(on_grid * on_grid, 0).to(tl.float64) * step * step / width
    return (1.0 / tl.sqrt(mean + eps)).to(tl.float32)
