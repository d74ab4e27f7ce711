"""Exact attention against a naive softmax, and against itself under every cut that a schedule can make."""

import itertools
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from kernels import ops

PAGE = 16


@dataclass(frozen=True, slots=True)
class Heads:
    count: int
    kv: int
    dim: int


SHAPES = [Heads(4, 2, 16), Heads(9, 3, 64), Heads(2, 2, 128)]


@dataclass(frozen=True, slots=True)
class Sequence:
    """One sequence of which every position is a query: whole numbers with scales, and what they stand for."""

    query: Tensor  # [keys, heads, dim]
    query_scale: Tensor  # [keys, heads]
    kv: Tensor  # int8 [keys, 2 * kv_heads, dim]
    kv_scale: Tensor  # [keys, 2 * kv_heads]

    def attend(self, start: int, stop: int, keys: int, window: int | None = None, begin: int = 0) -> Tensor:
        """Rows start:stop over the keys begin:keys, of which each row sees `window`.  # [rows, heads, dim]"""
        last = torch.arange(start, stop).unsqueeze(0)
        rows, seen = slice(start, stop), slice(begin, keys)
        return ops.attention(
            self.query[None, rows],
            self.query_scale[None, rows],
            self.kv[None, seen],
            self.kv_scale[None, seen],
            last - begin,
            None if window is None else (last - window + 1).clamp(min=0) - begin,
        )[0]

    def plain(self, window: int | None = None, score_scale: float | None = None) -> Tensor:
        """Every row by the float twin.  # [rows, heads, dim]"""
        last = torch.arange(len(self.query)).unsqueeze(0)
        return ops.float_attention(
            (self.query * self.query_scale.unsqueeze(-1))[None],
            (self.kv * self.kv_scale.unsqueeze(-1))[None],
            last,
            None if window is None else (last - window + 1).clamp(min=0),
            score_scale,
        )[0]


def drawn(heads: Heads, keys: int, seed: int = 0) -> Sequence:
    generator = torch.Generator().manual_seed(seed)
    q = torch.randn(keys, heads.count, heads.dim, generator=generator) * 2
    kv = torch.randn(keys, 2 * heads.kv, heads.dim, generator=generator)
    query, query_scale = ops.quantize_heads(q, torch.full((heads.count,), float(ops.query_levels(heads.dim))))
    whole, kv_scale = ops.quantize_heads(kv, torch.full((2 * heads.kv,), float(ops.INT8_LEVELS)))
    return Sequence(query, query_scale, whole.to(torch.int8), kv_scale)


def padded(length: int) -> int:
    return -(-length // ops.KEY_CHUNK) * ops.KEY_CHUNK


@pytest.mark.parametrize("heads", SHAPES)
def test_it_is_softmax_attention_of_what_the_numbers_stand_for(heads: Heads) -> None:
    sequence = drawn(heads, 192)
    for window in (None, 1, 63, 64, 65, 150):
        exact, plain = sequence.attend(0, 192, 192, window), sequence.plain(window)
        # What is left is the rounding of weights to 11 bits a chunk.
        assert ((exact - plain).norm() / plain.norm()).item() < 1e-3, f"window {window}"


def test_scores_are_scaled_as_asked() -> None:
    sequence = drawn(SHAPES[1], 64)
    last = torch.arange(64).unsqueeze(0)
    operands = (sequence.query[None], sequence.query_scale[None], sequence.kv[None], sequence.kv_scale[None])
    exact, plain = ops.attention(*operands, last, None, 0.05)[0], sequence.plain(score_scale=0.05)
    assert ((exact - plain).norm() / plain.norm()).item() < 1e-3
    assert ((exact - sequence.plain()).norm() / plain.norm()).item() > 1e-2


def test_the_float_twin_is_the_textbook() -> None:
    q, kv = torch.randn(1, 5, 4, 8), torch.randn(1, 5, 4, 8)  # 4 heads over 2 key/value heads
    got = ops.float_attention(q, kv, torch.arange(5).unsqueeze(0))
    for row, head in itertools.product(range(5), range(4)):
        key, value = kv[0, : row + 1, head // 2], kv[0, : row + 1, 2 + head // 2]
        weights = (key @ q[0, row, head] / 8**0.5).softmax(0)
        torch.testing.assert_close(got[0, row, head], weights @ value)


def test_the_float_twin_sees_its_window_only() -> None:
    q, kv = torch.randn(1, 9, 4, 8), torch.randn(1, 9, 4, 8)
    last = torch.arange(9).unsqueeze(0)
    got = ops.float_attention(q, kv, last, (last - 2).clamp(min=0))
    for row in range(9):
        first = max(0, row - 2)
        alone = ops.float_attention(q[:, row : row + 1], kv[:, first : row + 1], torch.tensor([[row - first]]))
        torch.testing.assert_close(got[:, row], alone[:, 0])


@pytest.mark.parametrize("heads", SHAPES)
def test_any_cut_of_a_prefill_gives_the_same_bits(heads: Heads) -> None:
    sequence = drawn(heads, 256)
    whole = sequence.attend(0, 256, 256)
    for cut in (1, 37, 64, 65, 200):
        pieces = [
            sequence.attend(start, min(start + cut, 256), padded(min(start + cut, 256))) for start in range(0, 256, cut)
        ]
        assert torch.equal(torch.cat(pieces), whole), f"chunks of {cut}"


@pytest.mark.parametrize("window", [1, 50, 64, 130])
def test_any_cut_gives_the_same_bits_under_a_window(window: int) -> None:
    """And so does leaving out the whole chunks before it."""
    sequence = drawn(SHAPES[1], 256)
    whole = sequence.attend(0, 256, 256, window)
    for cut in (1, 37, 64, 200):
        for start in range(0, 256, cut):
            stop = min(start + cut, 256)
            begin = max(0, start - window + 1) // ops.KEY_CHUNK * ops.KEY_CHUNK
            assert torch.equal(sequence.attend(start, stop, padded(stop), window), whole[start:stop])
            assert torch.equal(sequence.attend(start, stop, padded(stop), window, begin), whole[start:stop])


def test_what_stands_before_the_window_does_not_matter() -> None:
    sequence = drawn(SHAPES[0], 256)
    before = sequence.attend(190, 200, 256, 40)
    sequence.kv[:151] = 127
    sequence.kv_scale[:151] = 1e3
    assert torch.equal(sequence.attend(190, 200, 256, 40), before)
    assert not torch.equal(sequence.attend(190, 200, 256, 41), before)


@pytest.mark.parametrize("threads", [1, 2])
def test_a_sequence_is_the_same_in_any_company_and_under_any_padding(threads: int) -> None:
    heads, keys = SHAPES[1], 320
    sequences = [drawn(heads, keys, seed) for seed in range(20)]
    lengths = [1 + 17 * index % 319 for index in range(20)]
    alone = [s.attend(n - 1, n, padded(n)) for s, n in zip(sequences, lengths, strict=True)]
    torch.set_num_threads(threads)
    for count in range(1, 21):
        chosen = list(range(20))[-count:]
        together = ops.attention(
            torch.stack([sequences[i].query[lengths[i] - 1 : lengths[i]] for i in chosen]),
            torch.stack([sequences[i].query_scale[lengths[i] - 1 : lengths[i]] for i in chosen]),
            torch.stack([sequences[i].kv for i in chosen]),
            torch.stack([sequences[i].kv_scale for i in chosen]),
            torch.tensor([[lengths[i] - 1] for i in chosen]),
        )
        assert torch.equal(together[:, 0], torch.cat([alone[i] for i in chosen])), f"{count} sequences"


def test_what_stands_behind_the_last_position_does_not_matter() -> None:
    sequence = drawn(SHAPES[0], 128)
    before = sequence.attend(30, 31, 64)
    sequence.kv[31:] = 127
    sequence.kv_scale[31:] = 1e3
    assert torch.equal(sequence.attend(30, 31, 64), before)
    assert torch.equal(sequence.attend(30, 31, 128), before), "a chunk that is masked as a whole added something"


@pytest.mark.parametrize("dim", [16, 64, 80, 128, 256])
def test_no_sum_reaches_what_float32_cannot_hold(dim: int) -> None:
    levels = ops.query_levels(dim)
    assert levels * ops.INT8_LEVELS * dim < 2**24
    assert levels >= 255
    assert 2047 * ops.INT8_LEVELS * ops.KEY_CHUNK < 2**24


def test_pages_come_back_in_the_order_of_the_table() -> None:
    cache = torch.zeros(6, PAGE, 2, 4)
    values = torch.randn(2 * PAGE, 2, 4)
    slots = torch.cat((torch.arange(4 * PAGE, 5 * PAGE), torch.arange(2 * PAGE, 3 * PAGE)))
    ops.write_pages(cache, slots, values)
    found = ops.gather_pages(cache, torch.tensor([[4, 2, 0], [2, 4, 0]]))
    assert torch.equal(found[0, : 2 * PAGE], values)
    assert torch.equal(found[1, : 2 * PAGE], values.roll(PAGE, dims=0))
    assert not found[:, 2 * PAGE :].any()
