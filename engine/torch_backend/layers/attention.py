"""Paged attention of one layer, exact and plain; each owns the pages of its layer and knows no requests."""

import torch
from torch import Tensor

from engine.batch import PageLayout
from engine.models.shape import ModelShape
from engine.torch_backend.inputs import Inputs
from engine.torch_backend.layers.rope import Rotation
from kernels import ops


class ExactAttention:
    """Keys and values as int8 with a scale for each (token, head); queries as 11-bit whole numbers."""

    def __init__(self, shape: ModelShape, pages: PageLayout, device: torch.device) -> None:
        self._shape = shape
        slots = (pages.count, pages.size, 2 * shape.num_kv_heads)
        self._values = torch.zeros(*slots, shape.head_dim, dtype=torch.int8, device=device)
        self._scales = torch.zeros(*slots, device=device)
        levels = [ops.query_levels(shape.head_dim)] * shape.num_heads + [ops.INT8_LEVELS] * (2 * shape.num_kv_heads)
        self._levels = torch.tensor(levels, dtype=torch.float32, device=device)  # [heads + 2 * kv_heads]

    def __call__(self, qkv: Tensor, rotation: Rotation, inputs: Inputs) -> Tensor:
        heads = self._shape.num_heads
        whole, scale = ops.quantize_heads(_rotated(qkv, self._shape, rotation), self._levels)
        self._keep(whole[:, heads:], scale[:, heads:], inputs.slots)
        query, query_scale = whole[:, :heads], scale[:, :heads]
        out = torch.empty(len(qkv), heads, self._shape.head_dim, device=qkv.device)
        for group in inputs.groups:
            rows, grid = slice(group.start, group.stop), group.last.shape  # [sequences, rows of each]
            out[rows] = ops.attention(
                query[rows].reshape(*grid, *query.shape[1:]),
                query_scale[rows].reshape(*grid, heads),
                ops.gather_pages(self._values, group.tables),
                ops.gather_pages(self._scales, group.tables),
                group.last,
            ).flatten(0, 1)
        return out.flatten(1)

    def _keep(self, whole: Tensor, scale: Tensor, slots: Tensor) -> None:
        """A row that is not finite fails its own request; its pages must not pass that on to whoever gets them next."""
        ops.write_pages(self._scales, slots, scale.nan_to_num(0.0, 0.0, 0.0))
        ops.write_pages(self._values, slots, whole.nan_to_num(0.0, 0.0, 0.0).to(torch.int8))


class PlainAttention:
    """Keys, values and queries in float32."""

    def __init__(self, shape: ModelShape, pages: PageLayout, device: torch.device) -> None:
        self._shape = shape
        self._values = torch.zeros(pages.count, pages.size, 2 * shape.num_kv_heads, shape.head_dim, device=device)

    def __call__(self, qkv: Tensor, rotation: Rotation, inputs: Inputs) -> Tensor:
        rotated = _rotated(qkv, self._shape, rotation)
        query, kv = rotated[:, : self._shape.num_heads], rotated[:, self._shape.num_heads :]
        ops.write_pages(self._values, inputs.slots, kv.nan_to_num(0.0, 0.0, 0.0))
        out = torch.empty_like(query)
        for group in inputs.groups:
            rows = slice(group.start, group.stop)
            found = ops.gather_pages(self._values, group.tables)
            out[rows] = ops.float_attention(
                query[rows].reshape(*group.last.shape, *query.shape[1:]), found, group.last
            ).flatten(0, 1)
        return out.flatten(1)


def _rotated(qkv: Tensor, shape: ModelShape, rotation: Rotation) -> Tensor:
    """[rows, heads + 2 * kv_heads, head_dim], query and key heads rotated in place."""
    heads = qkv.view(len(qkv), -1, shape.head_dim)
    ops.rope(heads[:, : shape.num_heads + shape.num_kv_heads], rotation.cos, rotation.sin)
    return heads
