"""Writes keys and values into pages, by itself or behind norm and rotation; knows slots, no requests and no tables.

slot = page * page_size + offset in page        pages [num_pages, 2, kv_heads, page_size, head_dim], keys then values

A row of slot -1 is padding and is written nowhere. What is not finite is kept as zero (an int8 head as a whole): its
row fails by its query, and the page must not pass it on to whoever gets it next.
"""

from typing import Final

import torch
from torch import Tensor

from kernels.reference.norm import rms_norm
from kernels.reference.quantize import INT8_LEVELS, SMALLEST_MAX
from kernels.reference.rope import rope

_LEVELS: Final = torch.tensor(float(INT8_LEVELS))


def write_kv(key: Tensor, value: Tensor, kv_pages: Tensor, kv_scales: Tensor | None, slots: Tensor) -> None:
    kept = slots >= 0
    page_size = kv_pages.shape[3]
    page, offset = slots[kept] // page_size, slots[kept] % page_size
    heads = torch.stack((key, value), dim=1)[kept].float()  # [kept rows, 2, kv_heads, head_dim]
    if kv_scales is None:
        limit = torch.finfo(kv_pages.dtype).max
        heads = heads.nan_to_num(0.0, 0.0, 0.0).clamp_(-limit, limit)
        kv_pages[page, :, :, offset] = heads.to(kv_pages.dtype)
        return
    heads = heads.masked_fill(~heads.isfinite().all(-1, keepdim=True), 0.0)
    largest = heads.abs().amax(-1)  # [kept rows, 2, kv_heads]
    inverse = _LEVELS / largest.clamp(min=SMALLEST_MAX)
    kv_pages[page, :, :, offset] = (heads * inverse.unsqueeze(-1)).round_().to(torch.int8)
    kv_scales[page, :, :, offset] = largest / _LEVELS


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
    rows, _, head_dim = qkv.shape
    kv_heads = kv_pages.shape[2]
    heads = qkv.shape[1] - 2 * kv_heads
    query, key, value = torch.split(qkv.float(), [heads, kv_heads, kv_heads], dim=1)
    query, key = _normed(query, query_weight, eps), _normed(key, key_weight, eps)
    c, s = cos[positions.long()], sin[positions.long()]  # [rows, head_dim / 2]
    cosines, sines = torch.cat((c, c), dim=1).unsqueeze(1), torch.cat((-s, s), dim=1).unsqueeze(1)
    write_kv(rope(key, cosines, sines), value, kv_pages, kv_scales, slots)
    out = torch.empty(rows, heads, head_dim, dtype=qkv.dtype, device=qkv.device) if out is None else out
    return out.copy_(rope(query, cosines, sines))


def _normed(x: Tensor, weight: Tensor | None, eps: float) -> Tensor:
    """A copy of x [rows, heads, head_dim], each head normed by itself."""
    return x.clone() if weight is None else rms_norm(x, weight.float(), eps)
