"""Symmetric quantisation of rows, groups and attention heads to whole numbers; knows nothing of weights or caches.

Only maxima and correctly rounded elementwise operations are used, so a row's result is the same bits whatever else is
in the tensor and whichever device or SIMD width computes it.
"""

from typing import Final

import torch
from torch import Tensor
from torch.nn import functional

INT8_LEVELS: Final = 127
# Inputs of a linear layer that share a scale: an outlier coarsens its 63 neighbours and not the whole row.
GROUP: Final = 64
# Keeps 127 / max finite for an all-zero row; far below any activation that matters.
SMALLEST_MAX: Final = 1e-30
# Constants as tensors: torch converts a Python number anew in every call, which costs as much as a small operation.
_LEVELS: Final = torch.tensor(float(INT8_LEVELS))
_STEP: Final = torch.tensor(1.0 / INT8_LEVELS)


def quantize_rows(x: Tensor) -> tuple[Tensor, Tensor]:
    largest = x.abs().amax(-1, keepdim=True).clamp_(min=SMALLEST_MAX)  # [..., 1]
    values = (x * (_LEVELS / largest)).round_().to(torch.int8)  # [..., width]
    return values, largest.mul_(_STEP)


def quantize_groups(x: Tensor) -> tuple[Tensor, Tensor]:
    values, scale = quantize_rows(in_groups(x))
    return values, scale.squeeze(-1)


def in_groups(x: Tensor) -> Tensor:
    """[rows, width] -> [rows, groups, 64], the last group filled up with zeros."""
    padded = functional.pad(x, (0, -x.shape[1] % GROUP))
    return padded.view(len(x), padded.shape[1] // GROUP, GROUP)


def quantize_heads(x: Tensor, levels: Tensor) -> tuple[Tensor, Tensor]:
    largest = x.abs().amax(-1).clamp_(min=SMALLEST_MAX)  # [tokens, heads]
    values = (x * (levels / largest).unsqueeze(-1)).round_()  # [tokens, heads, head_dim]
    return values, largest / levels
