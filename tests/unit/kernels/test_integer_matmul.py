"""Both roads of the grouped int8 product against int64, where saturation would show; what the engine's proof finds."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from engine.torch_backend.proof import is_exact
from kernels import ops
from kernels.reference.quantize import in_groups

CPU = torch.device("cpu")
WIDTHS = (1, 2, 63, 64, 65, 576, 1024, 1026, 1536)
Product = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
ROADS = [
    pytest.param(ops.int8_group_matmul, torch.int8, id="int8"),
    pytest.param(ops.float_group_matmul, torch.float32, id="float"),
]


def skip_unless_exact(product: Product, dtype: torch.dtype) -> None:
    if product is ops.int8_group_matmul and not is_exact(product, dtype, CPU, [64]):
        pytest.skip("this CPU's int8 product saturates; the engine takes the portable road here")


def extremes(rows: int, width: int, seed: int) -> Tensor:
    """+-127; row 0 is all +127."""
    generator = torch.Generator().manual_seed(seed)
    signs = torch.randint(0, 2, (rows, width), generator=generator, dtype=torch.int8)
    signs[0] = 1
    return signs * 254 - 127


def scales(*shape: int) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(3)) + 0.01


@pytest.mark.parametrize(("product", "dtype"), ROADS)
@pytest.mark.parametrize("width", [*WIDTHS, 5000])
@pytest.mark.parametrize("rows", [1, 3, 17, 70])
def test_it_is_the_formula_with_int64_sums(product: Product, dtype: torch.dtype, rows: int, width: int) -> None:
    skip_unless_exact(product, dtype)
    x, weight = in_groups(extremes(rows, width, 1)), in_groups(extremes(40, width, 2)).transpose(0, 1).contiguous()
    groups = -(-width // 64)
    x_scale, weight_scale = scales(rows, groups), scales(40)
    wanted = torch.zeros(rows, 40)
    for group in range(groups):
        wanted += (x[:, group].long() @ weight[group].long().t()).float() * x_scale[:, group, None]
    assert torch.equal(product(x, x_scale, weight.to(dtype), weight_scale), wanted * weight_scale)


@pytest.mark.parametrize(("product", "dtype"), ROADS)
def test_the_largest_sum_of_a_group_is_whole(product: Product, dtype: torch.dtype) -> None:
    skip_unless_exact(product, dtype)
    most = torch.full((2, 1, 64), 127, dtype=torch.int8)
    got = product(most, torch.ones(2, 1), -most.transpose(0, 1).to(dtype), torch.ones(2))
    assert (got == -127 * 127 * 64).all()


def test_many_rows_are_cut_into_tiles_without_a_trace() -> None:
    """300 rows of 1,000 outputs pass the elements that one tile may have."""
    x, weight = torch.randn(300, 130), torch.randint(-127, 128, (3, 1000, 64), dtype=torch.int8)
    values, scale = ops.quantize_groups(x)
    whole = ops.float_group_matmul(values, scale, weight.float(), torch.ones(1000))
    alone = [
        ops.float_group_matmul(values[r : r + 1], scale[r : r + 1], weight.float(), torch.ones(1000))
        for r in (0, 150, 299)
    ]
    assert torch.equal(torch.cat(alone), whole[[0, 150, 299]])


def test_the_portable_road_is_always_exact() -> None:
    assert is_exact(ops.float_group_matmul, torch.float32, CPU, WIDTHS)


def test_the_proof_finds_a_product_that_saturates() -> None:
    def saturating(x: Tensor, x_scale: Tensor, weight: Tensor, weight_scale: Tensor) -> Tensor:
        """As without VNNI: x shifted to unsigned, pairs of products clipped to 16 bits, the shift taken off again.
        Its rows agree with each other all the same."""
        total = torch.zeros(len(x), weight.shape[1])
        for group, one in enumerate(weight):
            products = (x[:, group].long() + 128).unsqueeze(1) * one.long()  # [rows, out, 64]
            pairs = products.view(*products.shape[:2], -1, 2).sum(-1).clamp(-(1 << 15), (1 << 15) - 1)
            total += (pairs.sum(-1) - 128 * one.long().sum(-1)).float() * x_scale[:, group, None]
        return total * weight_scale

    assert not is_exact(saturating, torch.int8, CPU, [64])


def test_the_proof_finds_a_product_that_rounds() -> None:
    def rounding(x: Tensor, x_scale: Tensor, weight: Tensor, weight_scale: Tensor) -> Tensor:
        rounded = x.to(torch.bfloat16) * x_scale.to(torch.bfloat16).unsqueeze(-1)
        return torch.einsum("rgi,goi->ro", rounded, weight.to(torch.bfloat16)).float() * weight_scale

    assert not is_exact(rounding, torch.int8, CPU, [576])


def test_the_proof_finds_groups_that_are_added_in_another_order() -> None:
    def backwards(x: Tensor, x_scale: Tensor, weight: Tensor, weight_scale: Tensor) -> Tensor:
        return ops.float_group_matmul(x.flip(1), x_scale.flip(1), weight.float().flip(0), weight_scale)

    assert not is_exact(backwards, torch.int8, CPU, [576])


def test_the_proof_finds_a_row_that_differs_when_it_is_alone() -> None:
    def other_kernel_for_one_row(x: Tensor, x_scale: Tensor, weight: Tensor, weight_scale: Tensor) -> Tensor:
        """Fuses the last multiplication where there is one row, as a library's own kernel for vectors may."""
        if len(x) > 1 or torch.equal(x, first):
            return ops.float_group_matmul(x, x_scale, weight.float(), weight_scale)
        return ops.float_group_matmul(x, x_scale * weight_scale[0], weight.float(), weight_scale / weight_scale[0])

    seen: list[Tensor] = []

    def remembering(x: Tensor, x_scale: Tensor, weight: Tensor, weight_scale: Tensor) -> Tensor:
        seen.append(x)
        return ops.float_group_matmul(x, x_scale, weight.float(), weight_scale)

    assert is_exact(remembering, torch.int8, CPU, [576])
    first = seen[0]
    assert not is_exact(other_kernel_for_one_row, torch.int8, CPU, [576])


def test_the_proof_takes_a_missing_product_for_none() -> None:
    def missing(x: Tensor, x_scale: Tensor, weight: Tensor, weight_scale: Tensor) -> Tensor:
        raise RuntimeError("not implemented for this device")

    assert not is_exact(missing, torch.int8, CPU, WIDTHS)
