"""Attention: the same bits in prefill and decode, with more padding, in any group; near softmax within its levels."""

import itertools
import math
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from kernels import ops

HEADS, KV_HEADS, DIM = 6, 2, 64
LENGTH = 150


@dataclass(frozen=True, slots=True)
class Sequence:
    """One sequence of LENGTH tokens, quantised as the engine does; padded to `keys` with what pages may hold."""

    query: Tensor  # [LENGTH, heads, dim]
    query_scale: Tensor  # [LENGTH, heads]
    kv: Tensor  # int8 [LENGTH, 2 * kv_heads, dim]
    kv_scale: Tensor  # [LENGTH, 2 * kv_heads]
    floats: Tensor  # [LENGTH, heads + 2 * kv_heads, dim]

    def padded(self, keys: int) -> tuple[Tensor, Tensor]:
        """Behind the end lies another sequence's leftover, not zeros."""
        generator = torch.Generator().manual_seed(99)
        kv = torch.randint(-127, 128, (keys, *self.kv.shape[1:]), generator=generator, dtype=torch.int8)
        scale = torch.rand(keys, self.kv_scale.shape[1], generator=generator) * 50
        count = min(keys, LENGTH)
        kv[:count], scale[:count] = self.kv[:count], self.kv_scale[:count]
        return kv, scale


def sequence(seed: int, spread: float = 1.0) -> Sequence:
    generator = torch.Generator().manual_seed(seed)
    floats = torch.randn(LENGTH, HEADS + 2 * KV_HEADS, DIM, generator=generator) * spread
    levels = torch.tensor([float(ops.query_levels(DIM))] * HEADS + [127.0] * (2 * KV_HEADS))
    whole, scale = ops.quantize_heads(floats, levels)
    kv = whole[:, HEADS:].to(torch.int8)
    return Sequence(whole[:, :HEADS].clone(), scale[:, :HEADS].clone(), kv, scale[:, HEADS:].clone(), floats)


def attend(one: Sequence, start: int, stop: int, keys: int) -> Tensor:
    """Rows start to stop of one sequence.  # [rows, heads, dim]"""
    kv, kv_scale = one.padded(keys)
    last = torch.arange(start, stop).unsqueeze(0)
    rows = slice(start, stop)
    return ops.attention(one.query[rows][None], one.query_scale[rows][None], kv[None], kv_scale[None], last)[0]


@pytest.fixture(scope="module")
def one() -> Sequence:
    return sequence(1)


@pytest.fixture(scope="module")
def whole(one: Sequence) -> Tensor:
    """All rows in one prefill."""
    return attend(one, 0, LENGTH, 192)


def test_decode_is_prefill(one: Sequence, whole: Tensor) -> None:
    for at in (*range(0, LENGTH, 7), 63, 64, 65, 127, 128, 149):
        keys = (at // 64 + 1) * 64
        assert torch.equal(attend(one, at, at + 1, keys)[0], whole[at]), f"position {at}"


@pytest.mark.parametrize("cuts", [(0, 64, 128, 150), (0, 1, 63, 65, 150), (0, 100, 149, 150)], ids=str)
def test_any_cut_of_the_prefill_gives_the_same(one: Sequence, whole: Tensor, cuts: tuple[int, ...]) -> None:
    for start, stop in itertools.pairwise(cuts):
        keys = -(-stop // 64) * 64
        assert torch.equal(attend(one, start, stop, keys), whole[start:stop])


@pytest.mark.parametrize("keys", [192, 256, 1024])
def test_chunks_that_are_not_seen_change_nothing(one: Sequence, whole: Tensor, keys: int) -> None:
    assert torch.equal(attend(one, 149, 150, keys), whole[149:])
    assert torch.equal(attend(one, 3, 9, keys), whole[3:9])


@pytest.mark.parametrize("threads", [1, 2])
def test_neighbours_in_a_group_change_nothing(one: Sequence, whole: Tensor, threads: int) -> None:
    torch.set_num_threads(threads)
    members = [one, *(sequence(seed, spread=seed) for seed in range(2, 13))]
    for size in (1, 2, 5, 12):
        group = members[:size][::-1]
        ends = [149 if member is one else 10 * size for member in group]
        padded = [member.padded(192) for member in group]
        got = ops.attention(
            torch.stack([member.query[end][None] for member, end in zip(group, ends, strict=True)]),
            torch.stack([member.query_scale[end][None] for member, end in zip(group, ends, strict=True)]),
            torch.stack([kv for kv, _ in padded]),
            torch.stack([scale for _, scale in padded]),
            torch.tensor(ends).unsqueeze(1),
        )
        assert torch.equal(got[-1, 0], whole[149])


def test_a_query_that_is_not_finite_spoils_no_other(one: Sequence, whole: Tensor) -> None:
    kv, scale = one.padded(192)
    query, query_scale = one.query.clone(), one.query_scale.clone()
    query[70], query_scale[70] = torch.nan, torch.nan
    got = ops.attention(query[None], query_scale[None], kv[None], scale[None], torch.arange(LENGTH)[None])[0]
    assert got[70].isnan().any()
    assert torch.equal(got[:70], whole[:70])
    assert torch.equal(got[71:], whole[71:])


def softmax_attention(floats: Tensor) -> Tensor:
    """In float64, one query at a time.  # [tokens, heads, dim]"""
    query, key, value = torch.split(floats.double(), [HEADS, KV_HEADS, KV_HEADS], dim=1)
    out = torch.empty_like(query)
    for at in range(len(floats)):
        for head in range(HEADS):
            group = head // (HEADS // KV_HEADS)
            weights = (key[: at + 1, group] @ query[at, head] / math.sqrt(DIM)).softmax(0)
            out[at, head] = weights @ value[: at + 1, group]
    return out


@pytest.mark.parametrize("spread", [0.3, 1.0, 2.0])
def test_it_is_near_softmax_of_the_same_whole_numbers(spread: float) -> None:
    """What the summation costs by itself: 11-bit weights and an exponential good to 3e-6."""
    given = sequence(5, spread)
    query = given.query * given.query_scale.unsqueeze(-1)
    kv = given.kv * given.kv_scale.unsqueeze(-1)
    expected = softmax_attention(torch.cat((query, kv), 1))
    error = (attend(given, 0, LENGTH, 192) - expected).abs().max() / expected.abs().max()
    assert error < 1e-3


@pytest.mark.parametrize("spread", [0.3, 1.0])
def test_it_is_near_softmax_of_the_floats(spread: float) -> None:
    """With int8 keys and values: half a step of 127 for each, and the scores' share."""
    given = sequence(6, spread)
    expected = softmax_attention(given.floats)
    got = attend(given, 0, LENGTH, 192)
    assert (got - expected).abs().max() / expected.abs().max() < 0.02


def test_the_plain_twin_is_softmax() -> None:
    given = sequence(7)
    kv = torch.cat((given.floats[:, HEADS:], torch.full((42, 2 * KV_HEADS, DIM), 1e6)))
    got = ops.float_attention(given.floats[None, :, :HEADS], kv[None], torch.arange(LENGTH)[None])[0]
    assert torch.allclose(got.double(), softmax_attention(given.floats), rtol=0, atol=1e-5)
