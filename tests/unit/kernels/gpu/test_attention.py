"""Paged attention: the Triton kernel against its torch twin, the twin against a textbook, and both against themselves
under every cut that a schedule can make."""

import itertools
import math
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from torch import Tensor

from kernels import ops
from kernels.gpu.attention import Tile, attend, choose_tile
from kernels.gpu.attention import paged_attention as triton_attention
from kernels.reference.paged_attention import exp2, paged_attention

ONE_TILE = Tile(lines=16, warps=4, stages=2, splits=1)


@dataclass(frozen=True, slots=True)
class Step:
    """The inputs of one launch."""

    query: Tensor
    pages: Tensor
    scales: Tensor | None
    starts: Tensor
    contexts: Tensor
    tables: Tensor
    window: int = 0

    def by_reference(self) -> Tensor:
        return paged_attention(*self._inputs(), self.window)

    def by_triton(self, tile: Tile = ONE_TILE) -> Tensor:
        return attend(*self._inputs(), self.window, None, None, tile)

    def _inputs(self) -> tuple[Tensor, Tensor, Tensor | None, Tensor, Tensor, Tensor, float]:
        score_scale = 1 / math.sqrt(self.query.shape[2])
        return self.query, self.pages, self.scales, self.starts, self.contexts, self.tables, score_scale


@dataclass(frozen=True, slots=True)
class Heads:
    count: int
    kv: int
    dim: int


def drawn(
    rows: list[int], contexts: list[int], heads: Heads, dtype: torch.dtype, window: int = 0, page_size: int = 16
) -> Step:
    """Sequences of some rows and contexts over scattered pages."""
    generator = torch.Generator().manual_seed(sum(contexts) + heads.dim)
    width = -(-max(contexts) // page_size)
    count = width * len(rows)
    tables = torch.randperm(count, generator=generator).view(len(rows), width).to(torch.int32)
    floats = torch.randn(count, 2, heads.kv, page_size, heads.dim, generator=generator)
    pages, scales = floats.to(dtype), None
    if dtype == torch.int8:
        scales = floats.abs().amax(-1) / 127
        pages = (floats / scales.unsqueeze(-1)).round().to(torch.int8)
    query = torch.randn(sum(rows), heads.count, heads.dim, generator=generator) * 2
    if dtype != torch.int8:
        query = query.to(dtype)
    starts = torch.tensor([0, *itertools.accumulate(rows)], dtype=torch.int32)
    return Step(query, pages, scales, starts, torch.tensor(contexts, dtype=torch.int32), tables, window)


def textbook(step: Step) -> Tensor:
    """Softmax attention in float64, one row and head after the other."""
    pages = step.pages.double() if step.scales is None else step.pages.double() * step.scales.unsqueeze(-1)
    group = step.query.shape[1] // step.pages.shape[2]
    out = torch.empty(step.query.shape, dtype=torch.float64)
    for sequence, context in enumerate(step.contexts.tolist()):
        start, stop = step.starts[sequence : sequence + 2].tolist()
        key, value = pages[step.tables[sequence].long()].permute(1, 2, 0, 3, 4).flatten(2, 3)  # [kv_heads, keys, dim]
        for row, head in itertools.product(range(start, stop), range(step.query.shape[1])):
            past = context - stop + row + 1
            seen = slice(max(0, past - step.window) if step.window else 0, past)
            scores = key[head // group, seen] @ step.query[row, head].double() / math.sqrt(step.query.shape[2])
            out[row, head] = scores.softmax(0) @ value[head // group, seen]
    return out


def error(got: Tensor, wanted: Tensor) -> float:
    return float((got.double() - wanted).norm() / wanted.norm())


# A decode row, a sequence with nothing to do, a prefill from the beginning, a verify of three, a context at a border.
MIXED = ([1, 0, 6, 3, 1], [257, 0, 6, 66, 64])


@pytest.mark.parametrize("window", [0, 5, 100])
@pytest.mark.parametrize("dtype", [torch.int8, torch.float16])
def test_the_reference_is_softmax_attention(dtype: torch.dtype, window: int) -> None:
    step = drawn(*MIXED, Heads(6, 2, 64), dtype, window)
    # int8 pages: what is left is the query in 16,256 steps; float16: the rounding of weights to 11 bits.
    assert error(step.by_reference(), textbook(step)) < (2e-4 if dtype == torch.int8 else 1e-3)


@pytest.mark.parametrize(
    ("heads", "page_size", "window"),
    [
        (Heads(3, 1, 80), 16, 0),
        (Heads(2, 1, 96), 8, 5),
        (Heads(2, 2, 64), 32, 70),
        (Heads(20, 1, 256), 16, 0),
    ],
)
def test_over_int8_pages_the_kernel_has_the_bits_of_the_reference(heads: Heads, page_size: int, window: int) -> None:
    step = drawn(*MIXED, heads, torch.int8, window, page_size)
    tile = replace(ONE_TILE, lines=32 if heads.count > 16 else 16)
    assert torch.equal(step.by_triton(tile), step.by_reference())


@pytest.mark.parametrize(("dtype", "bound"), [(torch.float16, 1e-3), (torch.bfloat16, 1e-2)])
def test_over_float_pages_the_kernel_agrees_with_the_textbook(dtype: torch.dtype, bound: float) -> None:
    step = drawn(*MIXED, Heads(3, 1, 80), dtype, window=100)
    assert error(step.by_triton(), textbook(step)) < bound


def test_contexts_on_both_sides_of_every_border() -> None:
    contexts = [1, 15, 16, 17, 63, 64, 65, 255, 256, 257]
    step = drawn([1] * len(contexts), contexts, Heads(1, 1, 64), torch.int8)
    assert torch.equal(step.by_triton(), step.by_reference())


@pytest.mark.parametrize("dtype", [torch.int8, torch.float16])
def test_a_row_has_the_same_bits_in_every_company_cut_and_tile(dtype: torch.dtype) -> None:
    context, rows = 322, 3
    step = drawn([rows], [context], Heads(3, 1, 64), dtype, window=200)
    together = step.by_triton()
    assert torch.equal(step.by_triton(replace(ONE_TILE, lines=32)), together), "another tile"
    assert torch.equal(step.by_triton(replace(ONE_TILE, splits=2)), together), "a program for each segment"
    cut = replace(
        step,
        starts=torch.tensor([0, 1, 3], dtype=torch.int32),
        contexts=torch.tensor([context - 2, context], dtype=torch.int32),
        tables=step.tables.repeat(2, 1),
    )
    assert torch.equal(cut.by_triton(), together), "a decode row and a chunk of two, as neighbours"
    last = replace(step, query=step.query[-1:], starts=torch.tensor([0, 1], dtype=torch.int32))
    assert torch.equal(last.by_triton(), together[-1:]), "the last row by itself"


def test_what_stands_behind_the_context_does_not_matter() -> None:
    step = drawn([2], [20], Heads(2, 1, 64), torch.float16)
    before = step.by_triton()
    elsewhere = torch.full((3, *step.pages.shape[1:]), float("nan"), dtype=torch.float16)
    elsewhere[[2, 1]] = step.pages[step.tables[0].long()]
    elsewhere[1, :, :, 4:] = float("nan")
    moved = replace(step, pages=elsewhere, tables=torch.tensor([[2, 1, 0, 0, 0]], dtype=torch.int32))
    assert torch.equal(moved.by_triton(), before)


@pytest.mark.parametrize("splits", [1, 2])
def test_a_query_that_is_not_finite_gives_nan_for_its_own_head(splits: int) -> None:
    step = drawn([2, 1], [259, 3], Heads(2, 1, 64), torch.int8)
    step.query[1, 1, 5] = float("inf")
    with np.errstate(invalid="ignore"):  # the interpreter's infinity times zero, which makes the NaN
        got, wanted = step.by_triton(replace(ONE_TILE, splits=splits)), step.by_reference()
    assert got[1, 1].isnan().all()
    assert torch.equal(got.nan_to_num(), wanted.nan_to_num())
    assert got.isnan().sum() == 64


def test_padding_is_not_written_and_buffers_are_used_as_given() -> None:
    step = drawn([1, 2], [5, 9], Heads(2, 1, 64), torch.int8)
    padded = torch.cat((step.query, step.query))
    out = torch.full(padded.shape, 7.0)
    arguments = (step.pages, step.scales, step.starts, step.contexts, step.tables, 0.125)
    got = triton_attention(padded, *arguments, out=out, workspace=torch.empty(0))
    assert got is out
    assert torch.equal(out[:3], step.by_reference())
    assert bool((out[3:] == 7.0).all())


def test_segments_before_the_window_are_neither_written_nor_merged() -> None:
    step = replace(drawn([1], [300], Heads(2, 1, 64), torch.int8), window=20)
    score_scale, workspace = 0.125, torch.full((ops.attention_workspace(1, 2, 64, 304),), float("nan"))
    got = attend(
        step.query, step.pages, step.scales, step.starts, step.contexts, step.tables, score_scale, 20, None, workspace,
        replace(ONE_TILE, splits=2),
    )  # fmt: skip
    assert torch.equal(got, step.by_reference())


def test_a_query_may_be_a_view_of_its_row() -> None:
    step = drawn([3], [7], Heads(2, 1, 64), torch.int8)
    row = torch.cat((step.query, torch.zeros(3, 2, 64)), dim=1)
    assert torch.equal(replace(step, query=row[:, :2]).by_triton(), step.by_triton())


def test_few_programs_are_split_where_the_workspace_holds_all_segments() -> None:
    step = drawn([1] * 2, [2000, 300], Heads(8, 2, 64), torch.int8)
    floats = ops.attention_workspace(2, 8, 64, 2000)
    assert choose_tile(step.query, step.pages, step.tables, torch.empty(floats)).splits == 8
    assert choose_tile(step.query, step.pages, step.tables, torch.empty(floats - 1)).splits == 1
    assert choose_tile(step.query.repeat(1500, 1, 1), step.pages, step.tables, None).splits == 1


@pytest.mark.parametrize("dim", [64, 80, 96, 128, 256])
@pytest.mark.parametrize("group", [1, 3, 4, 7, 32])
def test_tiles_hold_a_whole_group_and_float_tiles_stay_below_64_lines(dim: int, group: int) -> None:
    tables = torch.zeros(1, 64, dtype=torch.int32)
    for dtype, rows in itertools.product((torch.int8, torch.float16), (1, 5, 512)):
        tile = choose_tile(torch.empty(rows, group, dim), torch.empty(1, 2, 1, 16, dim, dtype=dtype), tables, None)
        assert tile.lines >= max(16, group)
        assert dtype == torch.int8 or tile.lines < 64, "wgmma would add up in another order than mma.sync"


def test_no_score_adds_exactly_nothing_to_a_maximum() -> None:
    """Why a chunk that a row does not see changes no bit: its own factor meets zeros, the other is exactly 1."""
    assert exp2(torch.tensor([0.0])).item() == 1.0
    x = torch.linspace(-90, 0, 10_001)
    assert ((exp2(x).double() / x.double().exp2()) - 1).abs().max().item() < 2e-7
    assert exp2(torch.tensor([-1e30])).item() == 2.0**-100
