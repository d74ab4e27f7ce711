"""Paged attention of one layer, exact and plain; each owns the pages of its layer and knows no requests."""

import torch
from torch import Tensor

from engine.batch import PageLayout
from engine.models.shape import ModelShape
from engine.torch_backend.inputs import Inputs
from kernels import ops


class ExactAttention:
    """Keys and values as int8 with a scale for each (token, head); queries as 11-bit whole numbers."""

    def __init__(self, shape: ModelShape, window: int | None, pages: PageLayout, device: torch.device) -> None:
        self._heads, self._window, self._score_scale = shape.num_heads, window, shape.score_scale
        slots = (pages.count, pages.size, 2 * shape.num_kv_heads)
        self._values = torch.zeros(*slots, shape.head_dim, dtype=torch.int8, device=device)
        self._scales = torch.zeros(*slots, device=device)
        levels = [ops.query_levels(shape.head_dim)] * shape.num_heads + [ops.INT8_LEVELS] * (2 * shape.num_kv_heads)
        self._levels = torch.tensor(levels, dtype=torch.float32, device=device)  # [heads + 2 * kv_heads]

    def __call__(self, heads: Tensor, inputs: Inputs) -> Tensor:
        whole, scale = ops.quantize_heads(heads, self._levels)
        self._keep(whole[:, self._heads :], scale[:, self._heads :], inputs.slots)
        query, query_scale = whole[:, : self._heads], scale[:, : self._heads]
        out = torch.empty(query.shape, device=heads.device)
        for group in inputs.groups[self._window]:
            rows, grid = slice(group.start, group.stop), group.last.shape  # [sequences, rows of each]
            out[rows] = ops.attention(
                query[rows].reshape(*grid, *query.shape[1:]),
                query_scale[rows].reshape(*grid, self._heads),
                ops.gather_pages(self._values, group.tables),
                ops.gather_pages(self._scales, group.tables),
                group.last,
                group.first,
                self._score_scale,
            ).flatten(0, 1)
        return out.flatten(1)

    def _keep(self, whole: Tensor, scale: Tensor, slots: Tensor) -> None:
        """A row that is not finite fails its own request; its pages must not pass that on to whoever gets them next."""
        ops.write_pages(self._scales, slots, scale.nan_to_num(0.0, 0.0, 0.0))
        ops.write_pages(self._values, slots, whole.nan_to_num(0.0, 0.0, 0.0).to(torch.int8))


class PlainAttention:
    """Keys, values and queries in float32."""

    def __init__(self, shape: ModelShape, window: int | None, pages: PageLayout, device: torch.device) -> None:
        self._heads, self._window, self._score_scale = shape.num_heads, window, shape.score_scale
        self._values = torch.zeros(pages.count, pages.size, 2 * shape.num_kv_heads, shape.head_dim, device=device)

    def __call__(self, heads: Tensor, inputs: Inputs) -> Tensor:
        query, kv = heads[:, : self._heads], heads[:, self._heads :]
        ops.write_pages(self._values, inputs.slots, kv.nan_to_num(0.0, 0.0, 0.0))
        out = torch.empty_like(query)
        for group in inputs.groups[self._window]:
            rows, grid = slice(group.start, group.stop), group.last.shape
            found = ops.gather_pages(self._values, group.tables)
            grouped = query[rows].reshape(*grid, *query.shape[1:])
            out[rows] = ops.float_attention(grouped, found, group.last, group.first, self._score_scale).flatten(0, 1)
        return out.flatten(1)
