"""Products, norms, exponentials and rotations against wide arithmetic: int64 and float64."""

import math

import pytest
import torch

from kernels import ops
from kernels.reference.activation import exp2_
from kernels.reference.norm import grid_steps


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_quantised_rows_are_within_half_a_step() -> None:
    x = torch.randn(50, 300, generator=seeded()) * 10
    values, scale = ops.quantize_rows(x)
    assert values.dtype == torch.int8
    assert values.abs().amax(-1).eq(127).all()
    assert ((values * scale - x).abs() <= scale * 0.501).all()


@pytest.mark.parametrize("width", [1, 64, 65, 300])
def test_each_group_of_64_has_a_scale_of_its_own(width: int) -> None:
    """As rows of 64 would be quantised; the last group is filled up with zeros."""
    x = torch.randn(7, width, generator=seeded()) * torch.logspace(-3, 3, width)
    values, scale = ops.quantize_groups(x)
    assert values.shape == (7, -(-width // 64), 64)
    assert not values.flatten(1)[:, width:].any()
    for group, start in enumerate(range(0, width, 64)):
        alone, its_scale = ops.quantize_rows(x[:, start : start + 64])
        assert torch.equal(values[:, group, : alone.shape[1]], alone)
        assert torch.equal(scale[:, group], its_scale[:, 0])


def test_a_row_of_zeros_stays_zero() -> None:
    values, scale = ops.quantize_rows(torch.zeros(2, 8))
    assert not values.any()
    assert scale.isfinite().all()
    assert not ops.rms_norm(torch.zeros(2, 8), torch.ones(8), 1e-5).any()


def test_heads_are_quantised_to_their_own_levels() -> None:
    x = torch.randn(5, 3, 16, generator=seeded())
    levels = torch.tensor([127.0, 2047.0, 511.0])
    values, scale = ops.quantize_heads(x, levels)
    assert torch.equal(values, values.round())
    assert torch.equal(values.abs().amax(-1), levels.expand(5, 3))
    assert ((values * scale.unsqueeze(-1) - x).abs() <= scale.unsqueeze(-1) * 0.501).all()


@pytest.mark.parametrize("width", [1, 64, 576, 4096])
@pytest.mark.parametrize("size", [1e-6, 1.0, 1e4])
def test_rms_norm_is_that_of_float64(width: int, size: float) -> None:
    x, weight = torch.randn(4, width, generator=seeded()) * size, torch.randn(width, generator=seeded(1))
    wide = x.double()
    wanted = wide / (wide.square().mean(-1, keepdim=True) + 1e-5).sqrt() * weight
    torch.testing.assert_close(ops.rms_norm(x, weight, 1e-5), wanted.float(), rtol=3e-6, atol=1e-7)
    torch.testing.assert_close(ops.float_rms_norm(x, weight, 1e-5), wanted.float(), rtol=3e-6, atol=1e-7)


@pytest.mark.parametrize("width", [1, 2, 576, 8192, 16384, 1 << 20])
def test_the_sum_of_squares_fits_float64(width: int) -> None:
    assert width * int(grid_steps(width)) ** 2 <= 2**53


def test_powers_of_two_are_close_and_monotone_at_the_seams() -> None:
    x = torch.linspace(-100, 100, 400_001, dtype=torch.float64).float()
    wanted = torch.exp2(x.double())
    assert ((exp2_(x.clone()).double() - wanted).abs() / wanted).max() < 3e-6


def test_powers_of_two_keep_to_their_limits() -> None:
    x = torch.tensor([-1e30, -101.0, 101.0, 1e30, math.inf, -math.inf, math.nan])
    low, high = 2.0**-100, 2.0**100
    got = exp2_(x)
    assert got[-1].isnan()
    torch.testing.assert_close(got[:-1], torch.tensor([low, low, high, high, high, low]), rtol=3e-6, atol=0)


def test_gated_activations_are_those_of_torch() -> None:
    gate_up = torch.randn(30, 512, generator=seeded()) * 20
    torch.testing.assert_close(ops.silu_mul(gate_up), ops.float_silu_mul(gate_up), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(ops.gelu_mul(gate_up), ops.float_gelu_mul(gate_up), rtol=1e-5, atol=1e-5)


def test_rope_turns_pairs_of_halves() -> None:
    x = torch.randn(6, 2, 8, generator=seeded())
    angles = torch.rand(6, 1, 4, generator=seeded(1)) * 6
    cos, sin = torch.cat((angles.cos(), angles.cos()), -1), torch.cat((-angles.sin(), angles.sin()), -1)
    turned = torch.view_as_complex(torch.stack((x[..., :4], x[..., 4:]), -1)) * torch.polar(
        torch.ones_like(angles), angles
    )
    wanted = torch.cat((turned.real, turned.imag), -1)
    torch.testing.assert_close(ops.rope(x.clone(), cos, sin), wanted)
