"""Token embeddings, exact and plain, from the same matrix that a tied output layer multiplies by."""

from torch import Tensor
from torch.nn import functional

from engine.torch_backend.layers.linear import ExactWeight, PlainWeight


class ExactEmbedding:
    """row(token) = whole row * its scale."""

    def __init__(self, weight: ExactWeight) -> None:
        self._weight = weight

    def __call__(self, token_ids: Tensor) -> Tensor:
        whole = self._weight.values.index_select(1, token_ids).transpose(0, 1).flatten(1)  # [rows, groups * 64]
        scale = self._weight.scale.index_select(0, token_ids).unsqueeze(1)
        return whole[:, : self._weight.width].float() * scale


class PlainEmbedding:
    """row(token) in float32."""

    def __init__(self, weight: PlainWeight) -> None:
        self._values = weight.values

    def __call__(self, token_ids: Tensor) -> Tensor:
        return functional.embedding(token_ids, self._values)
