"""A row's bits depend on that row alone: every exact operation, for 1 to 70 rows, on one thread and on two."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from kernels import ops

ROWS = 70
# Odd widths have a scalar tail behind the SIMD body; 576 and 1,536 are a real model's, and 70 rows of 1,536 pass the
# 32,768 elements from which torch cuts a tensor among threads.
WIDTHS = [2, 33, 576, 1536]

Operation = Callable[[Tensor], Tensor]


def drawn(*shape: int, seed: int = 0) -> Tensor:
    """Normal numbers of mixed magnitude, as activations are."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator) * torch.randn(*shape, generator=generator).exp()


def quantized(x: Tensor) -> Tensor:
    values, scale = ops.quantize_groups(x)
    return torch.cat((values.flatten(1), scale), dim=1)


def quantized_heads(x: Tensor) -> Tensor:
    values, scale = ops.quantize_heads(x.unsqueeze(1), torch.tensor([127.0]))
    return torch.cat((values[:, 0], scale), dim=1)


def normalised(x: Tensor) -> Tensor:
    return ops.rms_norm(x, drawn(x.shape[1], seed=1), 1e-5)


def gated(x: Tensor) -> Tensor:
    return ops.silu_mul(torch.cat((x, x.flip(1)), dim=1))


def gated_by_gelu(x: Tensor) -> Tensor:
    return ops.gelu_mul(torch.cat((x, x.flip(1)), dim=1))


def weight_for(x: Tensor) -> Tensor:
    groups = -(-x.shape[1] // ops.GROUP)
    generator = torch.Generator().manual_seed(2)
    return torch.randint(-127, 128, (groups, 48, ops.GROUP), dtype=torch.int8, generator=generator)


def multiplied(x: Tensor) -> Tensor:
    return ops.int8_group_matmul(*ops.quantize_groups(x), weight_for(x), drawn(48, seed=3))


def multiplied_in_floats(x: Tensor) -> Tensor:
    return ops.float_group_matmul(*ops.quantize_groups(x), weight_for(x).float(), drawn(48, seed=3))


OPERATIONS: list[Operation] = [
    quantized,
    quantized_heads,
    normalised,
    gated,
    gated_by_gelu,
    multiplied,
    multiplied_in_floats,
]


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.__name__)
def test_a_row_is_the_same_in_any_company(operation: Operation, width: int, threads: int) -> None:
    x = drawn(ROWS, width)
    alone = torch.cat([operation(x[row : row + 1]) for row in range(ROWS)])
    torch.set_num_threads(threads)
    for rows in (*range(1, 20), 31, 32, 33, 64, ROWS):
        assert torch.equal(operation(x[:rows]), alone[:rows]), f"{rows} rows from the front"
        assert torch.equal(operation(x[-rows:]), alone[-rows:]), f"{rows} rows from the back"


@pytest.mark.parametrize("threads", [1, 2])
def test_large_batches_are_cut_among_threads_without_a_trace(threads: int) -> None:
    x = drawn(300, 1536)
    alone = torch.cat([gated(x[row : row + 1]) for row in range(300)])
    torch.set_num_threads(threads)
    assert torch.equal(gated(x), alone)
    assert torch.equal(normalised(x), torch.cat([normalised(x[row : row + 1]) for row in range(300)]))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_broken_row_stays_alone(value: float) -> None:
    x = drawn(9, 64)
    broken = x.clone()
    broken[4, 17] = value
    others = [row for row in range(9) if row != 4]
    for operation in (quantized, normalised, gated, gated_by_gelu, multiplied):
        assert torch.equal(operation(broken)[others], operation(x)[others])
        assert not operation(broken)[4].isfinite().all()
