"""Gathers embedding rows by token id: one program a row and tile."""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls, allow-untyped-decorators
from typing import Final

import triton
import triton.language as tl
from torch import Tensor

_TILE: Final = 1024


@triton.jit
def _embed(token_ids, weight, weight_scale, out, factor, width: tl.constexpr, scaled: tl.constexpr, tile: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    columns = tl.program_id(1) * tile + tl.arange(0, tile)
    inside = columns < width
    token_id = tl.load(token_ids + row).to(tl.int64)
    values = tl.load(weight + token_id * width + columns, mask=inside, other=0).to(tl.float32)
    if scaled:
        values = values * tl.load(weight_scale + token_id)
    tl.store(out + row * width + columns, (values * factor).to(out.dtype.element_ty), mask=inside)


def embed(token_ids: Tensor, weight: Tensor, weight_scale: Tensor | None, factor: float, out: Tensor) -> None:
    rows, width = out.shape
    tile = min(_TILE, triton.next_power_of_2(width))
    scale = weight if weight_scale is None else weight_scale
    _embed[rows, triton.cdiv(width, tile)](
        token_ids, weight, scale, out, factor, width, weight_scale is not None, tile, enable_fp_fusion=False
    )
