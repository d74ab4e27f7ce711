"""Writing keys and values into pages: the Triton kernel against its torch twin, bit for bit."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from kernels import ops
from kernels.gpu.kv_cache import write_kv as triton_write_kv
from kernels.reference.fused_kv_write import write_kv

Write = Callable[[Tensor, Tensor, Tensor, Tensor | None, Tensor], None]

# The last slot of a page, the first of the next, padding, and a page out of order.
SLOTS = torch.tensor([15, 16, -1, 3, 40])


def cache(dtype: torch.dtype, kv_heads: int, dim: int) -> tuple[Tensor, Tensor | None]:
    pages = torch.full((3, 2, kv_heads, 16, dim), 5.0).to(dtype)
    return pages, torch.full((3, 2, kv_heads, 16), 5.0) if dtype == torch.int8 else None


def written(write: Write, key: Tensor, value: Tensor, dtype: torch.dtype, slots: Tensor = SLOTS) -> Tensor:
    """Pages, and scales behind each head where there are any, as float32."""
    pages, scales = cache(dtype, key.shape[1], key.shape[2])
    write(key, value, pages, scales, slots)
    return pages.float() if scales is None else torch.cat((pages.float(), scales.unsqueeze(-1)), dim=-1)


@pytest.mark.parametrize(("kv_heads", "dim"), [(1, 80), (2, 64), (1, 256), (3, 16)])
@pytest.mark.parametrize("dtype", [torch.int8, torch.float16, torch.bfloat16])
def test_the_kernel_writes_what_the_reference_writes(dtype: torch.dtype, kv_heads: int, dim: int) -> None:
    # Numbers that bfloat16 holds: the interpreter cuts others off where devices round them.
    kv = torch.randn(5, 2 * kv_heads, dim).mul(3).bfloat16().float()
    kv[3, 0] = 0.0
    key, value = kv[:, :kv_heads], kv[:, kv_heads:]  # views: rows are two heads' widths apart
    assert torch.equal(written(triton_write_kv, key, value, dtype), written(write_kv, key, value, dtype))


def test_int8_heads_come_back_within_half_a_step_and_halves_go_to_even() -> None:
    key = torch.randn(5, 2, 64)
    value = torch.tensor([127.0, 0.5, 1.5, 2.5, -0.5, -1.5]).repeat(11)[:64].expand(5, 2, 64)
    pages, scales = cache(torch.int8, 2, 64)
    assert scales is not None
    ops.write_kv(key, value, pages, scales, SLOTS)
    for row, slot in enumerate(SLOTS.tolist()):
        if slot >= 0:
            found, step = pages[slot // 16, 0, :, slot % 16].float(), scales[slot // 16, 0, :, slot % 16].unsqueeze(-1)
            assert bool(((found * step - key[row]).abs() <= step * 0.5001).all())
    assert pages[0, 1, 0, 15, :6].tolist() == [127, 0, 2, 2, 0, -2]


@pytest.mark.parametrize("write", [write_kv, triton_write_kv])
@pytest.mark.parametrize("slot", [0, -1])
def test_nothing_but_the_slot_is_touched(write: Write, slot: int) -> None:
    before = written(write, torch.ones(1, 2, 64), torch.ones(1, 2, 64), torch.int8, torch.tensor([-1]))
    after = written(write, torch.ones(1, 2, 64), torch.ones(1, 2, 64), torch.int8, torch.tensor([slot]))
    changed = (after != before).nonzero()
    assert len(changed) == (0 if slot < 0 else 2 * 2 * 65)
    assert bool((changed[:, [0, 3]] == 0).all())


@pytest.mark.parametrize("write", [write_kv, triton_write_kv])
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_pages_hold_finite_numbers_only(write: Write, bad: float) -> None:
    key, value = torch.ones(1, 1, 64), torch.full((1, 1, 64), 1e6)
    key[0, 0, 9] = bad
    with np.errstate(over="ignore"):
        whole = written(write, key, value, torch.int8, torch.tensor([0]))
        half = written(write, key, value, torch.float16, torch.tensor([0]))
    assert not whole[0, 0, 0, 0].any(), "an int8 head is kept or zero as a whole, its scale too"
    assert whole[0, 1, 0, 0].tolist() == [127.0] * 64 + [float(torch.tensor(1e6) / torch.tensor(127.0))]
    assert half[0, 0, 0, 0].tolist() == [0.0 if i == 9 else 1.0 for i in range(64)]
    assert half[0, 1, 0, 0].tolist() == [65504.0] * 64


def test_no_rows_are_no_work() -> None:
    empty = torch.zeros(0, 2, 64)
    assert bool((written(triton_write_kv, empty, empty, torch.int8, SLOTS[:0]) == 5.0).all())
