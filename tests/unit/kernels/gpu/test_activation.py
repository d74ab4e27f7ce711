"""Gated activations and embeddings in Triton: the bits of the reference, and the functions that they stand for."""

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from kernels.gpu import activation, embedding
from kernels.reference import embedding as reference_embedding
from kernels.reference import fused_activation

ACTIVATIONS = ["silu", "gelu_tanh"]
WHOLE_ROW = 1 << 30


def drawn(rows: int, width: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return (torch.randn(rows, 2 * width, generator=torch.Generator().manual_seed(width)) * 5).to(dtype)


@pytest.mark.parametrize("kind", ACTIVATIONS)
@pytest.mark.parametrize(("width", "group"), [(1, 64), (1100, 64), (100, WHOLE_ROW)])
def test_quantised_they_have_the_bits_of_the_reference(kind: str, width: int, group: int) -> None:
    gate_up, groups = drawn(2, width), math.ceil(width / group)
    got, got_scale = torch.full((2, width), 99, dtype=torch.int8), torch.full((2, groups), math.nan)
    wanted, wanted_scale = torch.empty_like(got), torch.empty_like(got_scale)
    activation.gated_quantize(gate_up, kind, group, got, got_scale)
    fused_activation.gated_quantize(gate_up, kind, group, wanted, wanted_scale)
    assert torch.equal(got_scale, wanted_scale)
    assert torch.equal(got, wanted)


@pytest.mark.parametrize("kind", ACTIVATIONS)
@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    # The interpreter cuts bfloat16 off where a GPU rounds: one unit of its 8 bits.
    [(torch.float32, 0.0), (torch.float16, 0.0), (torch.bfloat16, 2**-7)],
)
def test_alone_they_have_the_bits_of_the_reference(kind: str, dtype: torch.dtype, tolerance: float) -> None:
    gate_up = drawn(2, 130, dtype)
    got = torch.full((2, 130), math.nan, dtype=dtype)
    wanted = torch.empty_like(got)
    activation.gated(gate_up, kind, got)
    fused_activation.gated(gate_up, kind, wanted)
    torch.testing.assert_close(got, wanted, rtol=tolerance, atol=0)


def test_they_are_what_torch_calls_so() -> None:
    gate_up = drawn(2, 130)
    gate, up = gate_up.chunk(2, dim=-1)
    out = torch.empty(2, 130)
    activation.gated(gate_up, "silu", out)
    torch.testing.assert_close(out, functional.silu(gate) * up, rtol=1e-5, atol=1e-5)
    activation.gated(gate_up, "gelu_tanh", out)
    torch.testing.assert_close(out, functional.gelu(gate, approximate="tanh") * up, rtol=1e-5, atol=1e-5)


def test_a_row_is_the_same_alone_and_in_company_and_nan_stays_in_its_row() -> None:
    gate_up = drawn(3, 70)
    gate_up[0, 3] = math.nan
    together, alone = torch.empty(3, 70), torch.empty(1, 70)
    activation.gated(gate_up, "silu", together)
    activation.gated(gate_up[1:2], "silu", alone)
    assert together[0].isnan().any()
    assert torch.equal(together[1:2], alone)


@pytest.mark.parametrize("width", [1, 1100])
@pytest.mark.parametrize("scaled", [True, False])
def test_an_embedding_is_its_row_times_its_scale(width: int, scaled: bool) -> None:
    generator = torch.Generator().manual_seed(width)
    weight = torch.randint(-127, 128, (5, width), dtype=torch.int8, generator=generator)
    scale = torch.rand(5, generator=generator) if scaled else None
    matrix = weight if scaled else torch.randn(5, width, generator=generator).half()
    token_ids = torch.tensor([4, 0, 4])
    got, wanted = torch.full((3, width), math.nan), torch.empty(3, width)
    embedding.embed(token_ids, matrix, scale, 1.7, got)
    reference_embedding.embed(token_ids, matrix, scale, 1.7, wanted)
    assert torch.equal(got, wanted)
    if scale is not None:
        torch.testing.assert_close(got[1], weight[0] * scale[0] * 1.7)
