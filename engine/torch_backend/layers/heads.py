"""Cuts a row of queries, keys and values into heads, normalises and rotates them; knows one layer's options."""

from torch import Tensor

from engine.models.shape import ModelShape
from engine.torch_backend.layers.protocols import Norm
from engine.torch_backend.layers.rope import Rotation
from kernels import ops


class Heads:
    """[rows, (heads + 2 * kv_heads) * head_dim] -> [rows, heads + 2 * kv_heads, head_dim]: queries, keys, values.

    `query_norm` and `key_norm` go over each head by itself. Queries and keys are rotated in place, values are not.
    """

    def __init__(self, shape: ModelShape, query_norm: Norm | None, key_norm: Norm | None) -> None:
        self._head_dim = shape.head_dim
        self._queries = slice(0, shape.num_heads)
        self._keys = slice(shape.num_heads, shape.num_heads + shape.num_kv_heads)
        self._rotated = slice(0, shape.num_heads + shape.num_kv_heads)
        self._query_norm, self._key_norm = query_norm, key_norm

    def __call__(self, qkv: Tensor, rotation: Rotation) -> Tensor:
        heads = qkv.view(len(qkv), -1, self._head_dim)
        if self._query_norm is not None:
            heads[:, self._queries] = self._query_norm(heads[:, self._queries])
        if self._key_norm is not None:
            heads[:, self._keys] = self._key_norm(heads[:, self._keys])
        ops.rope(heads[:, self._rotated], rotation.cos, rotation.sin)
        return heads
