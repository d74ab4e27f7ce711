"""Quantisation of rows in groups of any number of inputs, into buffers that are there already."""

from torch import Tensor
from torch.nn import functional

from kernels.reference.quantize import quantize_rows


def quantize_by_group(x: Tensor, group: int, out: Tensor, out_scale: Tensor) -> None:
    width = x.shape[-1]
    group = min(group, width)
    padded = functional.pad(x.float(), (0, -width % group)).view(len(x), -1, group)  # [rows, groups, group]
    values, scale = quantize_rows(padded)
    out.copy_(values.flatten(1)[:, :width])
    out_scale.copy_(scale.squeeze(-1))
