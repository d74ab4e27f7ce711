"""Attention over int8 pages in which every sum is a sum of whole numbers; knows one group of equally long tables.

    scores   q (11 bits) . k (7 bits) over head_dim          whole, below 2^24: exact in float32, in any order
    weights  e = 2^(score - row maximum)
    divisor  sum of round(e 2^17)                            whole: in chunks of 64 keys below 2^24, then in float64
    values   in chunks of 64 keys at fixed positions: round(e v_scale 2047 / chunk maximum) . v (7 bits), again whole
             and below 2^24; then the chunks are merged in the order of their positions

So a query's result depends on its own keys alone: not on its neighbours, the cut of its prefill, the padding of its
table or the tiling below. A chunk that is masked as a whole adds exactly zero.
"""

import math
from typing import Final

import torch
from torch import Tensor

from kernels.reference.activation import LOG2_E, exp2_
from kernels.reference.quantize import INT8_LEVELS

KEY_CHUNK: Final = 64
WEIGHT_LEVELS: Final = 2047  # 2047 * 127 * 64 < 2^24
_EXACT_FLOAT32: Final = 2**24 - 1
# Constants as tensors: torch converts a Python number anew in every call.
_WEIGHT_LEVELS: Final = torch.tensor(float(WEIGHT_LEVELS))
_WEIGHT_STEP: Final = torch.tensor(1.0 / WEIGHT_LEVELS)
_DIVISOR_STEPS: Final = torch.tensor(2.0**17)
# The score of a key that a query must not see: far below any real one, and finite, so that no row becomes NaN by it.
_UNSEEN: Final = -1e30
# Chunks whose weights are all below this count as nothing: a masked key weighs 2^-100 = 8e-31 times its value's scale.
_SMALLEST_WEIGHT: Final = 1e-20
# Elements in flight: large enough to amortise some thirty operators, small enough to stay in a core's cache.
_TILE_SCORES: Final = 1 << 18
_TILE_KEYS: Final = 1 << 20


def query_levels(head_dim: int) -> int:
    """The largest whole number that a query element may be while q . k stays below 2^24."""
    return min(WEIGHT_LEVELS, _EXACT_FLOAT32 // (INT8_LEVELS * head_dim))


def attention(
    query: Tensor,
    query_scale: Tensor,
    kv: Tensor,
    kv_scale: Tensor,
    last: Tensor,
    first: Tensor | None = None,
    score_scale: float | None = None,
) -> Tensor:
    out = torch.empty_like(query)
    if first is None:
        first = torch.zeros_like(last)
    # The score's scale and log2(e) belong to the score; here they cost one small product.
    query_scale = query_scale * (LOG2_E * (1.0 / math.sqrt(query.shape[-1]) if score_scale is None else score_scale))
    at_once = max(1, _TILE_KEYS // kv[0].numel())
    for start in range(0, len(query), at_once):
        part = slice(start, start + at_once)
        _attend_sequences(query[part], query_scale[part], kv[part], kv_scale[part], first[part], last[part], out[part])
    return out


def _attend_sequences(
    q: Tensor, q_scale: Tensor, kv: Tensor, kv_scale: Tensor, first: Tensor, last: Tensor, out: Tensor
) -> None:
    sequences, rows, heads, head_dim = q.shape
    keys, kv_heads = kv.shape[1], kv.shape[2] // 2
    heads_first = kv.view(sequences, keys, 2, kv_heads, head_dim).permute(2, 0, 3, 1, 4)  # [2, S, G, K, D]
    key, value = torch.empty(heads_first.shape, device=kv.device).copy_(heads_first).unbind()
    key_scale, value_scale = kv_scale.view(sequences, keys, 2, kv_heads).permute(2, 0, 3, 1).unsqueeze(3).unbind()
    at_once = max(1, _TILE_SCORES // (sequences * heads * keys))
    for start in range(0, rows, at_once):
        part = slice(start, start + at_once)
        # Chunks that no row of the tile sees add nothing, so they are not computed.
        begin = int(first[:, part].min()) // KEY_CHUNK * KEY_CHUNK
        end = min(keys, (int(last[:, part].max()) // KEY_CHUNK + 1) * KEY_CHUNK)
        out[:, part] = _attend(
            _by_kv_head(q[:, part], kv_heads),
            _by_kv_head(q_scale[:, part, :, None], kv_heads),
            key[:, :, begin:end],
            key_scale[..., begin:end],
            value[:, :, begin:end],
            value_scale[..., begin:end],
            first[:, part] - begin,
            last[:, part] - begin,
        )


def _by_kv_head(x: Tensor, kv_heads: int) -> Tensor:
    """[S, R, H, D] -> [S, G, R * g, D]: the query heads of one key/value head side by side."""
    sequences, rows, heads, width = x.shape
    grouped = x.reshape(sequences, rows, kv_heads, heads // kv_heads, width).transpose(1, 2)
    return grouped.reshape(sequences, kv_heads, rows * (heads // kv_heads), width)


def _attend(
    q: Tensor,
    q_scale: Tensor,
    key: Tensor,
    key_scale: Tensor,
    value: Tensor,
    value_scale: Tensor,
    first: Tensor,
    last: Tensor,
) -> Tensor:
    """q [S, G, R * g, D]; key, value [S, G, K, D]; scales [S, G, 1, K]; first, last [S, R] -> [S, R, H, D]."""
    sequences, kv_heads, _, head_dim = q.shape
    keys, rows = key.shape[2], last.shape[1]
    scores = torch.matmul(q, key.transpose(2, 3))  # [S, G, Q, K]
    scores.mul_(key_scale).mul_(q_scale)
    # Keys that every row sees need no mask: of a long prompt nearly all.
    by_row = scores.view(sequences, kv_heads, rows, -1, keys)
    positions = torch.arange(keys, device=q.device)
    before, behind = int(first.max()), int(last.min()) + 1
    too_old = positions[:before] < first.unsqueeze(-1)  # [S, R, before]
    by_row[..., :before].masked_fill_(too_old[:, None, :, None, :], _UNSEEN)
    too_new = positions[behind:] > last.unsqueeze(-1)  # [S, R, K - behind]
    by_row[..., behind:].masked_fill_(too_new[:, None, :, None, :], _UNSEEN)
    weights = exp2_(scores.sub_(scores.amax(-1, keepdim=True)))
    divisor = _add_up((weights * _DIVISOR_STEPS).round_())  # [S, G, Q, 1]
    total = _weigh(weights.mul_(value_scale), value)  # [S, G, Q, D]
    total.div_((divisor / _DIVISOR_STEPS).float())
    return total.view(sequences, kv_heads, rows, -1, head_dim).transpose(1, 2).reshape(sequences, rows, -1, head_dim)


def _add_up(steps: Tensor) -> Tensor:
    """[..., K] -> float64 [..., 1]: the sum of whole numbers up to 2^17, of which float32 still holds 64 together."""
    by_chunk = steps.view(*steps.shape[:-1], -1, KEY_CHUNK)
    return by_chunk.sum(-1).sum(-1, keepdim=True, dtype=torch.float64)


def _weigh(weights: Tensor, value: Tensor) -> Tensor:
    """weights [S, G, Q, K] . value [S, G, K, D] -> [S, G, Q, D], chunk by chunk of keys."""
    sequences, kv_heads, queries, keys = weights.shape
    chunks, head_dim = keys // KEY_CHUNK, value.shape[-1]
    by_chunk = weights.view(sequences, kv_heads, queries, chunks, KEY_CHUNK).transpose(2, 3)  # [S, G, C, Q, 64]
    largest = by_chunk.amax(-1, keepdim=True).clamp_(min=_SMALLEST_WEIGHT)  # [S, G, C, Q, 1]
    whole = torch.empty(by_chunk.shape, device=weights.device)
    torch.mul(by_chunk, _WEIGHT_LEVELS / largest, out=whole).round_()
    parts = torch.matmul(whole, value.view(sequences, kv_heads, chunks, KEY_CHUNK, head_dim))  # [S, G, C, Q, D]
    parts.mul_(largest.mul_(_WEIGHT_STEP))
    total = parts[:, :, 0]
    for chunk in range(1, chunks):
        total.add_(parts[:, :, chunk])
    return total
