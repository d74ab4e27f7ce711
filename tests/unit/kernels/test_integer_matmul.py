"""Both roads of the int8 product against int64, where saturation would show; what the engine's own proof finds."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from engine.torch_backend.numerics import is_exact
from kernels import ops

CPU = torch.device("cpu")
WIDTHS = (2, 64, 576, 1024, 1026, 1536)
Product = Callable[[Tensor, Tensor], Tensor]
ROADS = [
    pytest.param(ops.int8_matmul, torch.int8, id="int8"),
    pytest.param(ops.float_chunk_matmul, torch.float32, id="float chunks"),
]


def skip_unless_exact(product: Product, dtype: torch.dtype, width: int) -> None:
    if product is ops.int8_matmul and not is_exact(product, dtype, CPU, [width]):
        pytest.skip("this CPU's int8 product saturates; the engine takes the portable road here")


def extremes(rows: int, width: int, seed: int) -> Tensor:
    """+-127; row 0 is all +127."""
    generator = torch.Generator().manual_seed(seed)
    signs = torch.randint(0, 2, (rows, width), generator=generator, dtype=torch.int8)
    signs[0] = 1
    return signs * 254 - 127


@pytest.mark.parametrize(("product", "dtype"), ROADS)
@pytest.mark.parametrize("width", [*WIDTHS, 31, 1023, 5000])
@pytest.mark.parametrize("rows", [1, 3, 16, 17, 70])
def test_it_equals_int64(product: Product, dtype: torch.dtype, rows: int, width: int) -> None:
    skip_unless_exact(product, dtype, width)
    x, weight = extremes(rows, width, 1), extremes(40, width, 2)
    got = product(x, weight.to(dtype))
    assert got.dtype == torch.int32
    assert torch.equal(got.long(), x.long() @ weight.long().t())
    assert got[0, 0] == 127 * 127 * width


def test_the_portable_road_is_always_exact() -> None:
    assert is_exact(ops.float_chunk_matmul, torch.float32, CPU, WIDTHS)


def test_the_proof_finds_a_product_that_saturates() -> None:
    def saturating(x: Tensor, weight: Tensor) -> Tensor:
        """As without VNNI: x shifted to unsigned, pairs of products clipped to 16 bits, the shift taken off again.
        Its rows agree with each other all the same."""
        products = (x.long() + 128).unsqueeze(1) * weight.long()  # [rows, out, in]
        pairs = products.view(*products.shape[:2], -1, 2).sum(-1).clamp(-(1 << 15), (1 << 15) - 1)
        total: Tensor = pairs.sum(-1) - 128 * weight.long().sum(-1)
        return total.int()

    assert not is_exact(saturating, torch.int8, CPU, WIDTHS)


def test_the_proof_finds_a_product_that_rounds() -> None:
    def rounding(x: Tensor, weight: Tensor) -> Tensor:
        return (x.to(torch.bfloat16) @ weight.to(torch.bfloat16).t()).int()

    assert not is_exact(rounding, torch.int8, CPU, WIDTHS)


def test_the_proof_takes_a_missing_product_for_none() -> None:
    def missing(x: Tensor, weight: Tensor) -> Tensor:
        raise RuntimeError("not implemented for this device")

    assert not is_exact(missing, torch.int8, CPU, WIDTHS)


def test_whatever_road_is_proven_for_one_input_is_right_there() -> None:
    """torch 2.13 reads beyond a weight of one input; the proof at the model's own widths has to notice."""
    if is_exact(ops.int8_matmul, torch.int8, CPU, [1]):
        x, weight = extremes(70, 1, 1), extremes(40, 1, 2)
        assert torch.equal(ops.int8_matmul(x, weight).long(), x.long() @ weight.long().t())
    assert is_exact(ops.float_chunk_matmul, torch.float32, CPU, [1])
