"""Norm, rotation and KV write in one launch: the Triton kernel against the operations in a row, bit for bit."""

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from kernels import ops
from kernels.gpu.rope import qk_norm_rope_write_kv as triton_version
from kernels.reference.fused_kv_write import qk_norm_rope_write_kv as reference_version

EPS = 1e-6
POSITIONS = 60


@dataclass(frozen=True, slots=True)
class Case:
    heads: int
    kv_heads: int
    dim: int
    normed: tuple[bool, bool]
    dtype: torch.dtype


CASES = [
    Case(3, 1, 80, (True, True), torch.int8),
    Case(2, 2, 64, (False, False), torch.int8),
    Case(1, 1, 256, (True, False), torch.float16),
    Case(3, 1, 96, (False, True), torch.float16),
]


def tables(dim: int) -> tuple[Tensor, Tensor]:
    frequencies = 10000.0 ** (-torch.arange(dim // 2, dtype=torch.float64) / (dim // 2))
    angles = torch.arange(POSITIONS, dtype=torch.float64).unsqueeze(1) * frequencies
    return angles.cos().float(), angles.sin().float()


def cache(case: Case) -> tuple[Tensor, Tensor | None]:
    pages = torch.zeros(3, 2, case.kv_heads, 16, case.dim, dtype=case.dtype)
    return pages, torch.zeros(pages.shape[:-1]) if case.dtype == torch.int8 else None


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("rows", [1, 4])
def test_the_kernel_has_the_bits_of_the_operations_in_a_row(case: Case, rows: int) -> None:
    qkv = torch.randn(rows, case.heads + 2 * case.kv_heads, case.dim) * 3
    qkv[rows // 2, 0] = 0.0
    positions, slots = torch.tensor([59, 0, 7, 31])[:rows], torch.tensor([47, 0, 15, 16])[:rows]
    query_weight, key_weight = (torch.randn(case.dim) if normed else None for normed in case.normed)
    cos, sin = tables(case.dim)
    results = []
    for run in (reference_version, triton_version):
        pages, scales = cache(case)
        out = run(qkv, positions, cos, sin, query_weight, key_weight, EPS, pages, scales, slots)
        results.append((out, pages, torch.zeros(0) if scales is None else scales))
    for wanted, got in zip(*results, strict=True):
        assert torch.equal(got, wanted)


def test_the_reference_is_norm_then_rotation() -> None:
    case = CASES[0]
    qkv, weight, (cos, sin) = torch.randn(2, 5, 80), torch.randn(80), tables(80)
    pages, scales = cache(case)
    positions = torch.tensor([3, 50], dtype=torch.int32)
    got = ops.qk_norm_rope_write_kv(qkv, positions, cos, sin, weight, None, EPS, pages, scales, torch.tensor([0, 1]))
    query = ops.float_rms_norm(qkv[:, :3], weight, EPS)
    c, s = cos[[3, 50]].unsqueeze(1), sin[[3, 50]].unsqueeze(1)
    first, second = query[..., :40], query[..., 40:]
    wanted = torch.cat((first * c - second * s, second * c + first * s), dim=-1)
    assert torch.allclose(got, wanted, rtol=1e-4, atol=1e-5)


def test_padding_is_neither_read_nor_written() -> None:
    case = CASES[1]
    qkv = torch.randn(3, 6, 64)
    pages, scales = cache(case)
    out = torch.full((3, 2, 64), 7.0)
    far = torch.tensor([1, 1 << 40, 2])  # a position without a row in the tables
    got = triton_version(qkv, far, *tables(64), None, None, EPS, pages, scales, torch.tensor([0, -1, 1]), out)
    assert got is out
    assert bool((out[1] == 7.0).all())
    assert not bool((out[[0, 2]] == 7.0).any())
    assert not pages[:, :, :, 2:].any()


def test_a_row_has_the_same_bits_in_every_company() -> None:
    case = CASES[0]
    qkv, weight = torch.randn(3, 5, 80), torch.randn(80)
    positions, slots = torch.tensor([5, 6, 7]), torch.tensor([0, 1, 2])
    pages, scales = cache(case)
    together = triton_version(qkv, positions, *tables(80), weight, weight, EPS, pages, scales, slots)
    alone_pages, alone_scales = cache(case)
    alone = triton_version(
        qkv[1:2], positions[1:2], *tables(80), weight, weight, EPS, alone_pages, alone_scales, slots[1:2]
    )
    assert torch.equal(alone, together[1:2])
    assert torch.equal(alone_pages[0, :, :, 1], pages[0, :, :, 1])


def test_a_query_with_nan_keeps_it_and_its_key_leaves_none_behind() -> None:
    qkv = torch.randn(1, 6, 64)
    qkv[0, 0, 3] = qkv[0, 2, 3] = float("nan")
    pages, scales = cache(CASES[1])
    out = triton_version(qkv, torch.tensor([1]), *tables(64), None, None, EPS, pages, scales, torch.tensor([0]))
    assert scales is not None
    assert out[0, 0].isnan().any()
    assert out[0, 1].isfinite().all()
    assert scales[0, 0, :, 0].tolist()[0] == 0.0
    assert not pages[0, 0, 0, 0].any()
    assert pages[0, 0, 1, 0].any()
