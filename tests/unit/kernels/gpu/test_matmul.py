"""Products in Triton: int8 with the bits of the formula in every tiling, float rows that ignore the other rows."""

import math
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from kernels.gpu import bf16_matmul, int8_matmul
from kernels.reference import scaled_matmul

WHOLE_ROW = 1 << 30
# Around the borders of the paths and tiles: few rows without tensor cores, then tiles of 16, 32, 64 and 128 rows.
ROWS = [1, 3, 5, 17, 33, 130]


@dataclass(frozen=True, slots=True)
class Product:
    """Operands of one int8 product with everything behind it."""

    x: Tensor
    x_scale: Tensor
    weight: Tensor
    weight_scale: Tensor
    bias: Tensor
    residual: Tensor

    def run(self, group: int, rows: slice, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
        """By Triton and by the reference, of some rows."""
        got = torch.full_like(self.residual[rows], math.nan, dtype=dtype)
        wanted = torch.empty_like(got)
        operands = self.x[rows], self.x_scale[rows], self.weight, self.weight_scale, group
        int8_matmul.scaled_int8_matmul(*operands, got, self.bias, self.residual[rows])
        scaled_matmul.scaled_int8_matmul(*operands, wanted, self.bias, self.residual[rows])
        return got, wanted


def drawn(rows: int, width: int, outputs: int, group: int) -> Product:
    generator = torch.Generator().manual_seed(rows * width)

    def whole(lines: int) -> Tensor:
        return torch.randint(-127, 128, (lines, width), dtype=torch.int8, generator=generator)

    return Product(
        x=whole(rows),
        x_scale=torch.rand(rows, math.ceil(width / group), generator=generator),
        weight=whole(outputs),
        weight_scale=torch.rand(outputs, generator=generator) / 1000,
        bias=torch.randn(outputs, generator=generator),
        residual=torch.randn(rows, outputs, generator=generator),
    )


@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize("group", [64, WHOLE_ROW])
def test_int8_has_the_bits_of_the_formula(rows: int, group: int) -> None:
    got, wanted = drawn(rows, 200, 70, group).run(group, slice(None))
    assert torch.equal(got, wanted)


@pytest.mark.parametrize("width", [1, 64, 100])
def test_int8_of_odd_widths(width: int) -> None:
    got, wanted = drawn(5, width, 3, 64).run(64, slice(None))
    assert torch.equal(got, wanted)


@pytest.mark.parametrize("group", [64, WHOLE_ROW])
def test_int8_does_not_saturate_at_the_largest_sums(group: int) -> None:
    x = torch.full((5, 256), 127, dtype=torch.int8)
    weight = torch.full((2, 256), -127, dtype=torch.int8)
    scale = torch.ones(5, math.ceil(256 / group))
    out = torch.empty(5, 2)
    int8_matmul.scaled_int8_matmul(x, scale, weight, torch.ones(2), group, out)
    assert (out == -127 * 127 * 256).all()


def test_int8_rows_are_the_same_in_every_path_and_tile() -> None:
    product = drawn(130, 200, 70, 64)
    together, _ = product.run(64, slice(None))
    for rows in (slice(7, 8), slice(7, 20), slice(0, 33)):
        assert torch.equal(product.run(64, rows)[0], together[rows])


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float16, 0.0), (torch.bfloat16, 2**-7)])
def test_int8_in_every_type(dtype: torch.dtype, tolerance: float) -> None:
    got, wanted = drawn(5, 100, 40, 64).run(64, slice(None), dtype)
    torch.testing.assert_close(got, wanted, rtol=tolerance, atol=0)


def test_the_residual_may_be_the_output() -> None:
    product = drawn(5, 100, 40, 64)
    stream = product.residual.clone()
    int8_matmul.scaled_int8_matmul(
        product.x, product.x_scale, product.weight, product.weight_scale, 64, stream, product.bias, stream
    )
    assert torch.equal(stream, product.run(64, slice(None))[1])


def float_operands(rows: int, width: int, outputs: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(rows)
    return torch.randn(rows, width, generator=generator), torch.randn(outputs, width, generator=generator)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_float_products_are_those_of_float64(dtype: torch.dtype) -> None:
    x, weight = (each.to(dtype) for each in float_operands(3, 100, 40))
    bias, residual, out = torch.randn(40), torch.randn(3, 40), torch.full((3, 40), math.nan)
    bf16_matmul.float_matmul(x, weight, out, bias, residual)
    wanted = x.double() @ weight.double().t() + bias + residual
    torch.testing.assert_close(out, wanted.float(), rtol=1e-5, atol=1e-5)


def test_the_reference_is_that_product_too() -> None:
    x, weight = float_operands(3, 100, 40)
    got, wanted = torch.empty(3, 40), torch.empty(3, 40)
    bf16_matmul.float_matmul(x, weight, got)
    scaled_matmul.float_matmul(x, weight, wanted)
    torch.testing.assert_close(got, wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("outputs", [576, 4096, 14336, 151936])
def test_the_tile_of_a_float_product_is_the_weights_affair_alone(outputs: int) -> None:
    columns = bf16_matmul.columns_of(outputs)
    assert columns in (32, 64, 128)
    assert columns == 32 or math.ceil(outputs / columns) >= 128
