"""Products, norms, exponentials and rotations against wide arithmetic: int64 and float64."""

import math

import pytest
import torch
from torch import Tensor

from engine.torch_backend.numerics import is_exact
from kernels import ops
from kernels.reference.activation import exp2_
from kernels.reference.norm import grid_steps

CPU = torch.device("cpu")
WIDTHS = [1, 63, 576, 1024, 1025, 1536, 5000]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def whole(rows: int, width: int, seed: int) -> Tensor:
    return torch.randint(-127, 128, (rows, width), dtype=torch.int8, generator=seeded(seed))


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("rows", [1, 2, 7, 16, 17, 64])
def test_both_roads_are_int64_arithmetic(rows: int, width: int) -> None:
    x, weight = whole(rows, width, 1), whole(20, width, 2)
    wide = x.long() @ weight.long().t()
    assert torch.equal(ops.float_chunk_matmul(x, weight.float()).long(), wide)
    if is_exact(ops.int8_matmul, torch.int8, CPU, [width]):
        assert torch.equal(ops.int8_matmul(x, weight).long(), wide)


@pytest.mark.parametrize("width", [1024, 1536, 5000])
def test_the_portable_road_is_exact_at_the_largest_sums(width: int) -> None:
    x = torch.full((3, width), 127, dtype=torch.int8)
    weight = torch.full((2, width), -127.0)
    assert (ops.float_chunk_matmul(x, weight) == -127 * 127 * width).all()


def test_the_proof_accepts_the_portable_road_and_finds_saturation() -> None:
    def saturating(x: Tensor, weight: Tensor) -> Tensor:
        """As without VNNI: activations shifted to 0..255, pairs of products clipped to 16 bits, the shift taken back.
        Each row still ignores the others."""
        products = (x.long() + 128)[:, None, :] * weight.long()[None, :, :]  # [rows, out, in]
        pairs = products[..., ::2] + products[..., 1::2]
        return (pairs.clamp(-(2**15), 2**15 - 1).sum(-1) - 128 * weight.long().sum(-1)).int()

    assert is_exact(ops.float_chunk_matmul, torch.float32, CPU, WIDTHS)
    assert not is_exact(saturating, torch.int8, CPU, [64])


def test_a_product_that_torch_lacks_is_not_exact() -> None:
    def missing(x: Tensor, weight: Tensor) -> Tensor:
        raise RuntimeError("not implemented for this device")

    assert not is_exact(missing, torch.int8, CPU, [64])


def test_quantised_rows_are_within_half_a_step() -> None:
    x = torch.randn(50, 300, generator=seeded()) * 10
    values, scale = ops.quantize_rows(x)
    assert values.dtype == torch.int8
    assert values.abs().amax(-1).eq(127).all()
    assert ((values * scale - x).abs() <= scale * 0.501).all()


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


def test_silu_is_that_of_torch() -> None:
    gate_up = torch.randn(30, 512, generator=seeded()) * 20
    torch.testing.assert_close(ops.silu_mul(gate_up), ops.float_silu_mul(gate_up), rtol=1e-5, atol=1e-5)


def test_rope_turns_pairs_of_halves() -> None:
    x = torch.randn(6, 2, 8, generator=seeded())
    angles = torch.rand(6, 1, 4, generator=seeded(1)) * 6
    cos, sin = torch.cat((angles.cos(), angles.cos()), -1), torch.cat((-angles.sin(), angles.sin()), -1)
    turned = torch.view_as_complex(torch.stack((x[..., :4], x[..., 4:]), -1)) * torch.polar(
        torch.ones_like(angles), angles
    )
    wanted = torch.cat((turned.real, turned.imag), -1)
    torch.testing.assert_close(ops.rope(x.clone(), cos, sin), wanted)
