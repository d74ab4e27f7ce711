"""The proof, at every start, that this machine multiplies int8 groups exactly and row by row; knows no model."""

from collections.abc import Iterable
from typing import Final

import torch
from torch import Tensor

from engine.torch_backend.layers.linear import GroupProduct
from kernels.ops import GROUP

# Counts around the cuts that kernels make: one row, fewer than a tile, more than one.
_ROWS: Final = (1, 2, 7, 17, 33, 64)
_OUTPUTS: Final = 48


def is_exact(product: GroupProduct, weight_dtype: torch.dtype, device: torch.device, widths: Iterable[int]) -> bool:
    """Whether `product` over each of `widths` inputs is what int64 arithmetic gives where saturation would show, all at
    +-127, and gives each row alone the bits that it has in a batch.

    oneDNN without VNNI adds pairs of products in 16 bits and clips them; rows still agree with each other, so only a
    comparison with wider integers finds it. The widths are the model's own, since a width can be wrong by itself.
    """
    generator = torch.Generator().manual_seed(0)
    try:
        return all(
            _is_exact(product, weight_dtype, device, -(-width // GROUP), generator) for width in sorted(set(widths))
        )
    except RuntimeError:  # this build of torch has no such product for this device: the portable road is taken
        return False


def _is_exact(
    product: GroupProduct, weight_dtype: torch.dtype, device: torch.device, groups: int, generator: torch.Generator
) -> bool:
    weight = _extremes((groups, _OUTPUTS, GROUP), generator)
    weight_scale = torch.rand(_OUTPUTS, generator=generator)
    x = _extremes((max(_ROWS), groups, GROUP), generator)
    x_scale = torch.rand(max(_ROWS), groups, generator=generator)
    wanted = _in_wide_integers(x, x_scale, weight, weight_scale)
    on_device = weight.to(device, weight_dtype), weight_scale.to(device)

    def rows(start: int, stop: int) -> Tensor:
        return product(x[start:stop].to(device), x_scale[start:stop].to(device), *on_device).cpu()

    together = all(torch.equal(rows(0, count), wanted[:count]) for count in _ROWS)
    return together and all(torch.equal(rows(row, row + 1), wanted[row : row + 1]) for row in _ROWS[:-1])


def _in_wide_integers(x: Tensor, x_scale: Tensor, weight: Tensor, weight_scale: Tensor) -> Tensor:
    """The product as its formula says: sums of each group in int64, groups added in order.  # [rows, out]"""
    total = torch.zeros(len(x), weight.shape[1])
    for group in range(len(weight)):
        total += (x[:, group].long() @ weight[group].long().t()).float() * x_scale[:, group, None]
    return total * weight_scale


def _extremes(shape: tuple[int, int, int], generator: torch.Generator) -> Tensor:
    """int8 of +-127; the first row of each group is all +127, the largest sum there is."""
    signs = torch.randint(0, 2, shape, generator=generator, dtype=torch.int8)
    signs[0] = 1
    signs[:, 0] = 1
    return signs * 254 - 127
