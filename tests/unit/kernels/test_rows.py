"""A row's bits are its own: every exact operation on many rows at once, and on each alone, at other addresses and
with other numbers of threads."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from kernels import ops

WIDTH = 576
MANY = 70
COUNTS = (1, 2, 3, 7, 16, 17, 31, 33, 64, 70)

Operation = Callable[[Tensor], tuple[Tensor, ...]]


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) * 3


WEIGHT = noise(WIDTH, seed=1)
MATRIX, _ = ops.quantize_rows(noise(96, WIDTH, seed=2))
FLOAT_MATRIX = MATRIX.float()
ANGLES = noise(1, 1, 16, seed=3)
COS, SIN = ANGLES.cos().repeat(1, 1, 2), torch.cat((-ANGLES.sin(), ANGLES.sin()), -1)
LEVELS = torch.full((18,), 2047.0)


def rope(x: Tensor) -> tuple[Tensor, ...]:
    rows = len(x)
    return (ops.rope(x.clone().view(rows, 18, 32), COS.expand(rows, 1, 32), SIN.expand(rows, 1, 32)),)


OPERATIONS: dict[str, Operation] = {
    "quantize_rows": ops.quantize_rows,
    "quantize_heads": lambda x: ops.quantize_heads(x.view(len(x), 18, 32), LEVELS),
    "rms_norm": lambda x: (ops.rms_norm(x, WEIGHT, 1e-5),),
    "silu_mul": lambda x: (ops.silu_mul(x),),
    "rope": rope,
    "int8_matmul": lambda x: (ops.int8_matmul(ops.quantize_rows(x)[0], MATRIX),),
    "float_chunk_matmul": lambda x: (ops.float_chunk_matmul(ops.quantize_rows(x)[0], FLOAT_MATRIX),),
}
each_operation = pytest.mark.parametrize("operation", OPERATIONS.values(), ids=OPERATIONS)


def same(left: tuple[Tensor, ...], right: tuple[Tensor, ...]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(left, right, strict=True))


def rows_of(results: tuple[Tensor, ...], rows: slice) -> tuple[Tensor, ...]:
    return tuple(result[rows] for result in results)


@each_operation
def test_a_row_alone_is_the_row_among_many(operation: Operation) -> None:
    x = noise(MANY, WIDTH)
    whole = operation(x)
    for row in range(MANY):
        own = slice(row, row + 1)
        assert same(operation(x[own].clone()), rows_of(whole, own)), f"row {row}"


@each_operation
@pytest.mark.parametrize("threads", [1, 2])
def test_neither_count_nor_threads_nor_address_matter(operation: Operation, threads: int) -> None:
    x = noise(MANY, WIDTH)
    whole = operation(x)
    torch.set_num_threads(threads)
    for index, count in enumerate(COUNTS):
        start = (index * 11) % (MANY - count + 1)
        rows = slice(start, start + count)
        # SIMD bodies begin at other elements when the same numbers lie a few floats further on.
        shifted = torch.empty(count * WIDTH + 8)[index % 8 :][: count * WIDTH].view(count, WIDTH).copy_(x[rows])
        assert same(operation(shifted), rows_of(whole, rows)), f"{count} rows"


@each_operation
@pytest.mark.parametrize("bad", [torch.nan, torch.inf], ids=["nan", "inf"])
def test_a_row_that_is_not_finite_spoils_no_other(operation: Operation, bad: float) -> None:
    x = noise(9, WIDTH)
    whole = operation(x)
    x[4, 100] = bad
    spoiled = operation(x)
    for rows in (slice(0, 4), slice(5, 9)):
        assert same(rows_of(spoiled, rows), rows_of(whole, rows))


@pytest.mark.parametrize("name", ["rms_norm", "silu_mul", "quantize_heads"])
def test_what_is_not_a_number_stays_so_in_its_own_row(name: str) -> None:
    """Otherwise nobody would notice, and a wrong token would be shown."""
    x = noise(3, WIDTH)
    x[1] = torch.nan
    results = OPERATIONS[name](x)
    assert any(bool(result[1].isnan().any()) for result in results)
