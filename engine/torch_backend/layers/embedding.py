"""Token embeddings, exact and plain, from the same matrix that a tied output layer multiplies by."""

from torch import Tensor
from torch.nn import functional

from engine.torch_backend.layers.linear import Weight


class ExactEmbedding:
    """row(token) = int8 row * its scale."""

    def __init__(self, weight: Weight) -> None:
        assert weight.scale is not None
        self._values, self._scale = weight.values, weight.scale.unsqueeze(1)

    def __call__(self, token_ids: Tensor) -> Tensor:
        return functional.embedding(token_ids, self._values).float() * functional.embedding(token_ids, self._scale)


class PlainEmbedding:
    """row(token) in float32."""

    def __init__(self, weight: Weight) -> None:
        self._values = weight.values

    def __call__(self, token_ids: Tensor) -> Tensor:
        return functional.embedding(token_ids, self._values)
