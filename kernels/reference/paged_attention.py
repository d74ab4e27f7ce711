"""Attention over pages of keys and values, chunk by chunk at fixed positions; the formula that fused kernels keep to.

A row sees the positions from its window's first to its own. They are cut, by absolute position, into chunks of 64 keys
and segments of 256; whoever computes what, the order of additions is always this one:

    chunk      scores s_j, m = max s_j, e_j = 2^(s_j - m), d = sum e_j, o = sum e_j v_j
    segment    its chunks by position, from m = none, d = 0, o = 0:
                   m' = max(m, m_c),  d' = d 2^(m - m') + d_c 2^(m_c - m'),  o' = o 2^(m - m') + o_c 2^(m_c - m')
    row        its segments by position, in the same way; y = o / d

A chunk that the row does not see has m = none, d = 0, o = 0 and changes no bit, so borders of windows, tiles and
prefills leave no trace. Over int8 pages everything inside a chunk is a sum of whole numbers, exact in any order:

    scores     q in whole numbers up to 16,256 (one scale for each row and head), k up to 127: below 2^30
    d          e_j in steps of 2^-24, cut off: at most 2^30
    o          e_j v_scale_j in steps of the chunk's largest / 16,256, v up to 127: below 2^28

Over float pages d is such a sum too; scores and o are float sums, in the order that the device's dot product has.
"""

from typing import Final

import torch
from torch import Tensor

from kernels.reference.activation import LOG2_E
from kernels.reference.quantize import SMALLEST_MAX

KEY_CHUNK: Final = 64
SEGMENT_KEYS: Final = 256
# 127 * 128: two int8 digits of base 128, so that a kernel may use integer products of int8 for them.
WHOLE_LEVELS: Final = 16256
# The score of no key at all: far below any real one, and finite, so that no difference of two is NaN.
NO_SCORE: Final = -1e30
DIVISOR_STEPS: Final = 2**24
# torch makes `number / tensor` of a reciprocal and a product, which rounds twice; a tensor is divided once.
_LEVELS: Final = torch.tensor(float(WHOLE_LEVELS))
LOWEST_EXPONENT: Final = -100.0
# 2^f - 1 on [-1/2, 1/2], from f^1 on: by relative minimax, in float32 below 2e-7. That 2^0 is exactly 1 keeps chunks
# without keys from changing anything.
EXP2_COEFFICIENTS: Final = (
    0.6931470036506653,
    0.24022242426872253,
    0.05550733581185341,
    0.009671512991189957,
    0.001326472731307149,
)

# The running maximum, divisor and weighted values of one row: [rows, heads], [rows, heads], [rows, heads, head_dim].
_Partial = tuple[Tensor, Tensor, Tensor]


def paged_attention(
    query: Tensor,
    kv_pages: Tensor,
    kv_scales: Tensor | None,
    row_starts: Tensor,
    context_lens: Tensor,
    block_tables: Tensor,
    score_scale: float,
    window: int = 0,
    out: Tensor | None = None,
    workspace: Tensor | None = None,
) -> Tensor:
    out = torch.empty_like(query, memory_format=torch.contiguous_format) if out is None else out
    starts = row_starts.tolist()
    for sequence, context in enumerate(context_lens.tolist()):
        rows = slice(starts[sequence], starts[sequence + 1])
        if rows.start == rows.stop:
            continue
        pages = block_tables[sequence].long()
        position = torch.arange(context - rows.stop + rows.start, context, device=query.device)
        scales = None if kv_scales is None else _contiguous_keys(kv_scales.unsqueeze(-1), pages)
        found = _contiguous_keys(kv_pages, pages)
        out[rows] = _attend(query[rows].float(), found, scales, position, score_scale, window).to(out.dtype)
    return out


def attention_workspace(rows: int, heads: int, head_dim: int, max_context: int) -> int:
    """Float32 numbers that hold the partial results of all segments: for each row and head o, m and d."""
    return rows * heads * -(-max_context // SEGMENT_KEYS) * (head_dim + 2)


def _contiguous_keys(cache: Tensor, pages: Tensor) -> Tensor:
    """[num_pages, 2, kv_heads, page_size, width] -> [2, kv_heads, keys, width]."""
    found = cache.index_select(0, pages).permute(1, 2, 0, 3, 4)
    return found.reshape(2, cache.shape[2], -1, cache.shape[4])


def _attend(q: Tensor, kv: Tensor, scales: Tensor | None, position: Tensor, score_scale: float, window: int) -> Tensor:
    """q [rows, heads, head_dim], kv [2, kv_heads, keys, head_dim], position int64 [rows] -> as q."""
    factor = torch.tensor(score_scale * LOG2_E, device=q.device)  # float32
    # NaN or infinity in a query makes its whole head NaN, not a number that looks like any other.
    broken = (q * 0).sum(-1)  # [rows, heads]: 0 or NaN
    if scales is not None:
        q, q_scale = _whole(q.nan_to_num(0.0, 0.0, 0.0))
        factor = q_scale * factor  # [rows, heads]
    else:
        q = q.to(kv.dtype)
    lowest = position - window + 1 if window else torch.zeros_like(position)
    total = _nothing(q.shape, q.device)
    past = int(position[-1]) + 1
    for segment in range(0, past, SEGMENT_KEYS):
        part = _nothing(q.shape, q.device)
        for chunk in range(segment, min(segment + SEGMENT_KEYS, past), KEY_CHUNK):
            keys = torch.arange(chunk, min(chunk + KEY_CHUNK, past), device=q.device)
            visible = (keys <= position[:, None]) & (keys >= lowest[:, None])  # [rows, keys of the chunk]
            part = _merged(
                part, _chunk(q, kv[:, :, keys], None if scales is None else scales[:, :, keys], factor, visible)
            )
        total = _merged(total, part)
    _, divisor, values = total
    return values / (divisor + broken).unsqueeze(-1)


def _whole(q: Tensor) -> tuple[Tensor, Tensor]:
    """[rows, heads, head_dim] -> whole float32 of the same shape, scale [rows, heads]."""
    largest = q.abs().amax(-1).clamp_(min=SMALLEST_MAX)
    return (q * (_LEVELS / largest).unsqueeze(-1)).round_(), largest / WHOLE_LEVELS


def _nothing(shape: torch.Size, device: torch.device) -> _Partial:
    return (
        torch.full(shape[:-1], NO_SCORE, device=device),
        torch.zeros(shape[:-1], device=device),
        torch.zeros(shape, device=device),
    )


def _chunk(q: Tensor, kv: Tensor, scales: Tensor | None, factor: Tensor, visible: Tensor) -> _Partial:
    """kv [2, kv_heads, keys, head_dim], scales [2, kv_heads, keys, 1], visible [rows, keys]."""
    group = q.shape[1] // kv.shape[1]
    key, value = kv.repeat_interleave(group, dim=1)  # [heads, keys, head_dim] each
    if scales is None:
        scores = torch.einsum("rhd,hkd->rhk", q.float(), key.float()) * factor
    else:
        key_scale, value_scale = scales.repeat_interleave(group, dim=1).squeeze(-1)  # [heads, keys] each
        scores = torch.einsum("rhd,hkd->rhk", q.double(), key.double()).float() * key_scale * factor.unsqueeze(-1)
    scores = scores.masked_fill(~visible.unsqueeze(1), NO_SCORE)
    highest = scores.amax(-1)  # [rows, heads]
    weights = exp2(scores - highest.unsqueeze(-1)).masked_fill(~visible.unsqueeze(1), 0.0)
    divisor = (weights * DIVISOR_STEPS).to(torch.int32).sum(-1).float() / DIVISOR_STEPS
    if scales is None:
        return highest, divisor, torch.einsum("rhk,hkd->rhd", weights.to(value.dtype).float(), value.float())
    weights = weights * value_scale
    largest = weights.amax(-1).clamp(min=SMALLEST_MAX)  # [rows, heads]
    whole = (weights * (_LEVELS / largest).unsqueeze(-1)).round()
    values = torch.einsum("rhk,hkd->rhd", whole.double(), value.double()).float()
    return highest, divisor, values * (largest / WHOLE_LEVELS).unsqueeze(-1)


def _merged(before: _Partial, after: _Partial) -> _Partial:
    highest = torch.maximum(before[0], after[0])
    old, new = exp2(before[0] - highest), exp2(after[0] - highest)
    values = before[2] * old.unsqueeze(-1) + after[2] * new.unsqueeze(-1)
    return highest, before[1] * old + after[1] * new, values


def exp2(x: Tensor) -> Tensor:
    """2^x for float32 x up to 100, of multiply, add and round alone; 2^-100 stands for all below."""
    x = x.clamp(min=LOWEST_EXPONENT)
    whole = x.round()
    fraction = x - whole
    power = fraction * EXP2_COEFFICIENTS[-1]
    for coefficient in reversed(EXP2_COEFFICIENTS[:-1]):
        power = (power + coefficient) * fraction
    # A float whose mantissa is zero is a power of two: its bits are the biased exponent alone.
    scale = ((whole.to(torch.int32) + 127) << 23).view(torch.float32)
    return (power + 1.0) * scale
