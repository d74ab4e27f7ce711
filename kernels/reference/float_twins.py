"""The same operations as a textbook writes them, in float32; the plain twins that measure what exactness costs."""

import math

import torch
from torch import Tensor
from torch.nn import functional


def float_rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + eps) * weight


def float_silu_mul(gate_up: Tensor) -> Tensor:
    gate, up = gate_up.chunk(2, dim=-1)
    return functional.silu(gate) * up


def float_gelu_mul(gate_up: Tensor) -> Tensor:
    gate, up = gate_up.chunk(2, dim=-1)
    return functional.gelu(gate, approximate="tanh") * up


def float_attention(
    query: Tensor, kv: Tensor, last: Tensor, first: Tensor | None = None, score_scale: float | None = None
) -> Tensor:
    sequences, rows, heads, head_dim = query.shape
    keys, kv_heads = kv.shape[1], kv.shape[2] // 2
    key, value = kv.view(sequences, keys, 2, kv_heads, head_dim).permute(2, 0, 3, 1, 4)  # [S, G, K, D] each
    q = query.view(sequences, rows, kv_heads, heads // kv_heads, head_dim).permute(0, 2, 3, 1, 4)  # [S, G, g, R, D]
    scores = q @ key.unsqueeze(2).transpose(-1, -2)  # [S, G, g, R, K]
    scores.mul_(1.0 / math.sqrt(head_dim) if score_scale is None else score_scale)
    positions = torch.arange(keys, device=query.device)
    unseen = positions > last.unsqueeze(-1)  # [S, R, K]
    if first is not None:
        unseen |= positions < first.unsqueeze(-1)
    weights = scores.masked_fill_(unseen[:, None, None], float("-inf")).softmax(-1)
    out: Tensor = weights @ value.unsqueeze(2)  # [S, G, g, R, D]
    return out.permute(0, 3, 1, 2, 4).reshape(query.shape)
