"""Rows of an embedding matrix by token id; knows no tokens' meaning and no layers."""

from torch import Tensor
from torch.nn import functional


def embed(token_ids: Tensor, weight: Tensor, weight_scale: Tensor | None, factor: float, out: Tensor) -> None:
    rows = functional.embedding(token_ids, weight).float()  # [rows, width]
    if weight_scale is not None:
        rows *= weight_scale[token_ids].unsqueeze(1)
    out.copy_(rows * factor if factor != 1.0 else rows)
