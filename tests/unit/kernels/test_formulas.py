"""Each operation against its formula in float64, within the tolerance that its docstring or its levels promise."""

import math

import pytest
import torch
from torch import Tensor

from kernels import ops
from kernels.reference.activation import exp2_
from kernels.reference.norm import grid_steps


def noise(*shape: int, seed: int = 0, scale: float = 1.0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) * scale


def relative(got: Tensor, expected: Tensor) -> float:
    return float(((got.double() - expected).abs() / expected.abs().clamp(min=1e-30)).max())


def test_exp2() -> None:
    x = torch.linspace(-99.9, 99.9, 200_003)
    assert relative(exp2_(x.clone()), torch.exp2(x.double())) < 3e-6
    whole = torch.arange(-99.0, 100.0)
    assert relative(exp2_(whole.clone()), torch.exp2(whole.double())) < 1e-6
    ends = exp2_(torch.tensor([-1e30, -torch.inf, 1e30, torch.inf, torch.nan]))
    assert torch.allclose(ends[:2], torch.full((2,), 2.0**-100), rtol=1e-5, atol=0)
    assert torch.allclose(ends[2:4], torch.full((2,), 2.0**100), rtol=1e-5, atol=0)
    assert ends[4].isnan()


@pytest.mark.parametrize("scale", [1e-3, 1.0, 30.0])
def test_silu_mul(scale: float) -> None:
    x = noise(33, 130, scale=scale)
    gate, up = x.double().chunk(2, dim=-1)
    expected = gate * torch.sigmoid(gate) * up
    # Relative to the product: where exp(-gate) is clamped, both are nothing beside it.
    for got in (ops.silu_mul(x), ops.float_silu_mul(x)):
        assert float(((got - expected) / (gate * up)).abs().max()) < 1e-5


@pytest.mark.parametrize("width", [1, 64, 576, 4096])
@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e4])
def test_rms_norm(width: int, scale: float) -> None:
    x, weight = noise(7, width, scale=scale), noise(width, seed=1)
    expected = x.double() / torch.sqrt(x.double().square().mean(-1, keepdim=True) + 1e-5) * weight.double()
    assert relative(ops.rms_norm(x, weight, 1e-5), expected) < 1e-5
    assert relative(ops.float_rms_norm(x, weight, 1e-5), expected) < 1e-5


def test_rms_norm_of_nothing_is_nothing() -> None:
    assert ops.rms_norm(torch.zeros(2, 64), torch.ones(64), 1e-5).eq(0).all()


@pytest.mark.parametrize("width", [1, 2, 576, 1 << 13, 1 << 20])
def test_the_grid_of_a_norm_keeps_its_sum_exact(width: int) -> None:
    assert grid_steps(width) ** 2 * width <= 2.0**53


def test_quantize_rows() -> None:
    x = noise(40, 100, scale=5)
    x[7] = 0
    values, scale = ops.quantize_rows(x)
    assert values.dtype == torch.int8
    assert values.abs().amax(-1).tolist() == [0 if row == 7 else 127 for row in range(40)]
    assert ((values * scale - x).abs() <= scale * 0.5001).all()
    assert values[7].eq(0).all()


def test_halves_go_to_even() -> None:
    values, _ = ops.quantize_rows(torch.tensor([[127.0, 0.5, 1.5, 2.5, -0.5, -1.5]]))
    assert values.tolist() == [[127, 0, 2, 2, 0, -2]]


def test_quantize_heads() -> None:
    levels = torch.tensor([2047.0, 127.0])
    x = noise(5, 2, 16, scale=4)
    values, scale = ops.quantize_heads(x, levels)
    assert values.eq(values.round()).all()
    assert values.abs().amax(-1).tolist() == [[2047.0, 127.0]] * 5
    assert ((values * scale.unsqueeze(-1) - x).abs() <= scale.unsqueeze(-1) * 0.501).all()


def test_rope_turns_each_pair() -> None:
    x, angles = noise(6, 3, 8), noise(6, 1, 4, seed=2).double()
    cos, sin = angles.cos().float(), angles.sin().float()
    got = ops.rope(x.clone(), torch.cat((cos, cos), -1), torch.cat((-sin, sin), -1))
    pairs = torch.complex(x[..., :4].double(), x[..., 4:].double()) * torch.polar(torch.ones_like(angles), angles)
    assert torch.allclose(got.double(), torch.cat((pairs.real, pairs.imag), -1), rtol=0, atol=1e-6)


def test_pages_are_written_and_read_by_slot() -> None:
    cache = torch.zeros(5, 4, 2)
    values = noise(3, 2)
    ops.write_pages(cache, torch.tensor([4, 19, 6]), values)
    assert torch.equal(cache[1, 0], values[0])
    assert torch.equal(cache[4, 3], values[1])
    assert torch.equal(cache[1, 2], values[2])
    assert cache.count_nonzero() == 6
    found = ops.gather_pages(cache, torch.tensor([[4, 0], [1, 4]]))
    assert torch.equal(found, torch.stack((torch.cat((cache[4], cache[0])), torch.cat((cache[1], cache[4])))))


@pytest.mark.parametrize("head_dim", [16, 64, 128, 256])
def test_a_query_is_as_fine_as_exactness_allows(head_dim: int) -> None:
    levels = ops.query_levels(head_dim)
    assert levels * 127 * head_dim < 2**24
    assert levels == 2047 or (levels + 1) * 127 * head_dim >= 2**24
    assert math.log2(levels) > 8
