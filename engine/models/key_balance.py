"""Evens queries and keys out before they become whole numbers: what a key's bias has too much of moves to the query.

Int8 keys have one scale a head, so one large element coarsens all others, and the key biases of Qwen 2 have such
elements. Dividing elements i and i + head_dim / 2 of a key by s and multiplying those of its queries by s leaves q . k
as it is, since the rotation turns the two among themselves. It is done to the weights, when they are loaded, and costs
nothing afterwards; s is a power of two, so that float32 arithmetic keeps every bit.

The idea of moving scale between the factors of a product: Xiao et al., 2022 (arXiv 2211.10438).
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from engine.loaders.checkpoint import Checkpoint, Levels
from engine.models.shape import ModelShape

Floats = NDArray[np.float32]

# An element counts as large from so many times the median on: below, it drowns in how much all elements vary.
_ORDINARY: Final = 2.0


def balanced(checkpoint: Checkpoint, shape: ModelShape) -> Checkpoint:
    """The same model with queries and keys evened out; the checkpoint itself where keys have no biases."""
    return BalancedKeys(checkpoint, shape) if shape.qkv_bias and not shape.qk_norm else checkpoint


class BalancedKeys:
    """A Checkpoint that scales query and key weights of each layer as it hands them out."""

    def __init__(self, checkpoint: Checkpoint, shape: ModelShape) -> None:
        self._checkpoint = checkpoint
        self._shape = shape
        self._moved: dict[int, Floats] = {}  # layer -> s [kv_heads, head_dim]

    def has(self, role: str, layer: int | None = None) -> bool:
        return self._checkpoint.has(role, layer)

    def take(self, role: str, shape: tuple[int, ...], layer: int | None = None) -> Floats:
        values = self._checkpoint.take(role, shape, layer)
        if layer is None or role not in ("q", "k", "q_bias", "k_bias"):
            return values
        if layer not in self._moved:
            self._moved[layer] = self._scales(layer)
        is_key = role.startswith("k")
        group = 1 if is_key else self._shape.num_heads // self._shape.num_kv_heads
        moved = np.repeat(self._moved[layer], group, axis=0)  # [heads, head_dim]
        rows = moved.reshape(-1, *(1 for _ in shape[1:]))  # [rows of values, ...]
        scaled: Floats = values / rows if is_key else values * rows
        return scaled

    def has_levels(self, role: str, layer: int | None = None) -> bool:
        return role not in ("q", "k") and self._checkpoint.has_levels(role, layer)

    def levels(self, role: str, shape: tuple[int, ...], layer: int | None = None) -> Levels:
        return self._checkpoint.levels(role, shape, layer)

    def _scales(self, layer: int) -> Floats:
        """From biases, beside the length of each row of weights times the norm before it: what unit inputs make of it.

        [kv_heads, head_dim]
        """
        shape = self._shape
        before = self._checkpoint.take("attention_norm", (shape.hidden_size,), layer)
        sizes = []
        for role, width in (("q", shape.query_size), ("k", shape.kv_size)):
            weight = self._checkpoint.take(role, (width, shape.hidden_size), layer)
            bias = self._checkpoint.take(f"{role}_bias", (width,), layer)
            size = np.abs(bias) + np.sqrt(np.square(weight * before).sum(axis=1))
            sizes.append(size.reshape(shape.num_kv_heads, -1, shape.head_dim).max(axis=1))
        return _powers(*sizes)


def _powers(query: Floats, key: Floats) -> Floats:
    """Powers of two near sqrt(key excess / query excess), the same for both elements of a pair.  # [heads, head_dim]"""
    scale = np.exp2(np.rint(0.5 * np.log2(_excess(key) / _excess(query)))).astype(np.float32)
    return np.concatenate((scale, scale), axis=1)


def _excess(size: Floats) -> Floats:
    """How far each pair stands out among its head's elements, at least 1.  # [heads, head_dim / 2]"""
    median = np.maximum(np.median(size, axis=1, keepdims=True), np.finfo(np.float32).tiny)
    pairs = size.reshape(len(size), 2, -1).max(axis=1)
    excess: Floats = np.maximum(pairs / (median * _ORDINARY), 1.0)
    return excess
