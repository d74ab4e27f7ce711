"""What a model file may ask of its parts, whichever numerics policy made them; knows no implementation."""

from typing import Protocol

from torch import Tensor

from engine.torch_backend.inputs import Inputs
from engine.torch_backend.layers.rope import Rotation


class Linear(Protocol):
    def __call__(self, x: Tensor) -> Tensor:
        """[rows, in] -> [rows, out]."""
        ...


class Embedding(Protocol):
    def __call__(self, token_ids: Tensor) -> Tensor:
        """int64 [rows] -> [rows, hidden]."""
        ...


class Norm(Protocol):
    def __call__(self, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        """[rows, hidden] -> [rows, hidden]."""
        ...


class Attention(Protocol):
    def __call__(self, qkv: Tensor, rotation: Rotation, inputs: Inputs) -> Tensor:
        """[rows, (heads + 2 * kv_heads) * head_dim] -> [rows, heads * head_dim]; keeps the rows' keys and values."""
        ...
