"""Rotary position embedding, halves convention; knows tables of cosines and sines, not how they were made."""

import torch
from torch import Tensor


def rope(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    half = x.shape[-1] // 2
    swapped = torch.cat((x[..., half:], x[..., :half]), dim=-1)  # [tokens, heads, head_dim]
    return x.mul_(cos).add_(swapped.mul_(sin))
