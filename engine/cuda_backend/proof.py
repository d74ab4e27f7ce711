"""The proof, at every start, that this device multiplies int8 exactly and row by row; knows products and no model."""

from collections.abc import Iterable
from typing import Final

import torch
from torch import Tensor

from engine.cuda_backend.operations import Operations
from kernels.ops import GROUP

# Every way in which kernels/gpu/int8_matmul.py cuts rows: few without tensor cores, and each of its tiles.
_ROWS: Final = (1, 2, 3, 4, 16, 17, 33, 129)
_OUTPUTS: Final = 48


def products_are_exact(operations: Operations, device: torch.device, widths: Iterable[int]) -> bool:
    """Whether products over each of `widths` inputs, all at +-127, are what int64 arithmetic gives for any number of
    rows, and so give each row the bits that it has alone."""
    generator = torch.Generator().manual_seed(0)
    return all(_is_exact(operations, device, width, generator) for width in sorted(set(widths)))


def _is_exact(operations: Operations, device: torch.device, width: int, generator: torch.Generator) -> bool:
    x, weight = _extremes(max(_ROWS), width, generator), _extremes(_OUTPUTS, width, generator)
    x_scale = torch.rand(len(x), -(-width // GROUP), generator=generator)
    weight_scale = torch.rand(_OUTPUTS, generator=generator)
    wanted = _in_wide_integers(x, x_scale, weight, weight_scale)
    on_device = [tensor.to(device) for tensor in (x, x_scale, weight, weight_scale)]
    for rows in _ROWS:
        out = torch.empty(rows, _OUTPUTS, device=device)
        whole, scale, *weights = on_device
        operations.scaled_int8_matmul(whole[:rows], scale[:rows], *weights, GROUP, out)
        if not torch.equal(out.cpu(), wanted[:rows]):
            return False
    return True


def _in_wide_integers(x: Tensor, x_scale: Tensor, weight: Tensor, weight_scale: Tensor) -> Tensor:
    """The product as its formula says: sums of each group in int64, groups added in order.  # [rows, out]"""
    total = torch.zeros(len(x), len(weight))
    for group in range(x_scale.shape[1]):
        inputs = slice(group * GROUP, (group + 1) * GROUP)
        total += (x[:, inputs].long() @ weight[:, inputs].long().t()).float() * x_scale[:, group, None]
    return total * weight_scale


def _extremes(rows: int, width: int, generator: torch.Generator) -> Tensor:
    """int8 of +-127; the first row is all +127, the largest sum there is."""
    signs = torch.randint(0, 2, (rows, width), generator=generator, dtype=torch.int8)
    signs[0] = 1
    return signs * 254 - 127
