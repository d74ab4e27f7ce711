"""What a decoder may ask of its parts, whichever numerics policy made them; knows no implementation."""

from typing import Protocol

from torch import Tensor

from engine.torch_backend.inputs import Inputs


class Linear(Protocol):
    def __call__(self, x: Tensor) -> Tensor:
        """[rows, in] -> [rows, out]."""
        ...


class Embedding(Protocol):
    def __call__(self, token_ids: Tensor) -> Tensor:
        """int64 [rows] -> [rows, hidden]."""
        ...


class Norm(Protocol):
    def __call__(self, x: Tensor) -> Tensor:
        """[..., width] -> the same shape."""
        ...


class Attention(Protocol):
    def __call__(self, heads: Tensor, inputs: Inputs) -> Tensor:
        """[rows, heads + 2 * kv_heads, head_dim] -> [rows, heads * head_dim]; keeps the rows' keys and values."""
        ...
