"""RMS norm, residual sum and quantisation in Triton: the bits of the reference, row by row."""

import math

import pytest
import torch
from torch import Tensor

from kernels.gpu import norm, quantize
from kernels.reference import fused_norm, grouping

EPS = 1e-5
WHOLE_ROW = 1 << 30
# Widths: one input, a group short of one, several groups with a short last one, a real model's.
WIDTHS = [1, 63, 200, 576]


def drawn(rows: int, width: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
    return (torch.randn(rows, width, generator=torch.Generator().manual_seed(seed)) * 3).to(dtype)


def buffers(rows: int, width: int, group: int) -> tuple[Tensor, Tensor]:
    """Poisoned, so that what is not written shows."""
    groups = math.ceil(width / group)
    return torch.full((rows, width), 99, dtype=torch.int8), torch.full((rows, groups), math.nan)


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("group", [64, WHOLE_ROW])
def test_sum_norm_and_quantisation_have_the_bits_of_the_reference(width: int, group: int) -> None:
    x, weight, residual = drawn(3, width), drawn(1, width, seed=1)[0], drawn(3, width, torch.float16, seed=2)
    got_residual = residual.clone()
    got, got_scale = buffers(3, width, group)
    wanted, wanted_scale = buffers(3, width, group)
    norm.add_rms_norm_quantize(x, got_residual, weight, EPS, group, got, got_scale)
    fused_norm.add_rms_norm_quantize(x, residual, weight, EPS, group, wanted, wanted_scale)
    assert torch.equal(got_residual, residual)
    assert torch.equal(got_scale, wanted_scale)
    assert torch.equal(got, wanted)


@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    # The interpreter cuts bfloat16 off where a GPU rounds: one unit of its 8 bits.
    [(torch.float32, 0.0), (torch.float16, 0.0), (torch.bfloat16, 2**-7)],
)
def test_the_norm_alone_in_every_type(dtype: torch.dtype, tolerance: float) -> None:
    x, weight = drawn(2, 200, dtype), drawn(1, 200, dtype, seed=1)[0]
    got, wanted = torch.full_like(x, math.nan), torch.empty_like(x)
    norm.add_rms_norm(x, None, weight, EPS, got)
    fused_norm.add_rms_norm(x, None, weight, EPS, wanted)
    torch.testing.assert_close(got, wanted, rtol=tolerance, atol=0)


def test_the_norm_is_that_of_float64() -> None:
    x, weight = drawn(2, 576), drawn(1, 576, seed=1)[0]
    got = torch.empty_like(x)
    norm.add_rms_norm(x, None, weight, EPS, got)
    wanted = x.double() / (x.double().square().mean(-1, keepdim=True) + EPS).sqrt() * weight
    torch.testing.assert_close(got, wanted.float(), rtol=3e-6, atol=1e-7)


def test_a_row_is_the_same_alone_and_in_company() -> None:
    x, weight = drawn(4, 200), drawn(1, 200, seed=1)[0]
    together, together_scale = buffers(4, 200, 64)
    norm.add_rms_norm_quantize(x, None, weight, EPS, 64, together, together_scale)
    alone, alone_scale = buffers(1, 200, 64)
    norm.add_rms_norm_quantize(x[2:3], None, weight, EPS, 64, alone, alone_scale)
    assert torch.equal(together[2:3], alone)
    assert torch.equal(together_scale[2:3], alone_scale)


@pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning")  # NumPy, casting NaN to an integer
@pytest.mark.parametrize("poison", [math.nan, math.inf])
def test_a_row_that_is_not_finite_says_so_and_its_neighbour_does_not(poison: float) -> None:
    x, weight = drawn(2, 200), torch.ones(200)
    x[0, 150] = poison
    out, scale = buffers(2, 200, 64)
    norm.add_rms_norm_quantize(x, None, weight, EPS, 64, out, scale)
    assert not scale[0].isfinite().all()
    assert scale[1].isfinite().all()


def test_zeros_stay_zeros() -> None:
    out, scale = buffers(2, 100, 64)
    norm.add_rms_norm_quantize(torch.zeros(2, 100), None, torch.ones(100), EPS, 64, out, scale)
    assert not out.any()
    assert scale.isfinite().all()


@pytest.mark.parametrize(("width", "group"), [(1, 64), (2100, 64), (200, 32), (100, WHOLE_ROW)])
def test_quantisation_alone_has_the_bits_of_the_reference(width: int, group: int) -> None:
    x = drawn(2, width)
    got, got_scale = buffers(2, width, group)
    wanted, wanted_scale = buffers(2, width, group)
    quantize.quantize_by_group(x, group, got, got_scale)
    grouping.quantize_by_group(x, group, wanted, wanted_scale)
    assert torch.equal(got_scale, wanted_scale)
    assert torch.equal(got, wanted)
