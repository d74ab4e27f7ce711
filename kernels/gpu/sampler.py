"""Chooses a token for each row of logits on the device, without a word to the host.

The steps are those of kernels/reference/sampling.py. One program a row after the scores' pass: top-k and top-p look for
a border instead of sorting, noise is computed for the tiles that hold a token above it. Sums are of whole numbers, so a
row's choice depends on that row alone.
"""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls, allow-untyped-decorators
from typing import Final

import triton
import triton.language as tl
from torch import Tensor

from kernels.gpu.sampler_noise import gumbel, log, noise_stream
from kernels.gpu.sampler_ranks import (
    HIGHEST,
    LOWEST,
    best_below,
    find_border,
    gap_of,
    id_of,
    load_ranks,
    rank_of,
    score_of,
    slot_bests,
    tally,
)
from kernels.gpu.sampler_scores import adjust
from kernels.reference.sampling import GRID
from kernels.reference.sampling_table import LOWEST_LOGPROB, MOST_ALTERNATIVES, NO_TOKEN, Sampled, SamplingTable

_MOST_ALTERNATIVES: Final = tl.constexpr(MOST_ALTERNATIVES)
_LOWEST_LOGPROB: Final = tl.constexpr(LOWEST_LOGPROB)
_NO_TOKEN: Final = tl.constexpr(NO_TOKEN)
_GRID_STEP: Final = tl.constexpr(1.0 / GRID)
_TILE: Final = 4096
_WARPS: Final = 16


@triton.jit
def _choose(
    scores,
    temperatures,
    top_k,
    top_p,
    min_p,
    noise_key,
    offset,
    history_slot,
    history,
    token_ids,
    vocab: tl.constexpr,
    tile: tl.constexpr,
):
    """Program (row)."""
    row = tl.program_id(0).to(tl.int64)
    source = scores + row * vocab
    slots = slot_bests(source, HIGHEST, vocab, tile)
    best = tl.max(slots, 0)
    top, temperature = score_of(best), tl.load(temperatures + row)
    sound = tl.abs(top) < float("inf")
    token_id = id_of(best)
    if sound & (temperature > 0):
        border = _border(source, slots, top, temperature, tl.load(top_k + row), tl.load(top_p + row), vocab, tile)
        stream = noise_stream(tl.load(noise_key + row), tl.load(offset + row))
        token_id = id_of(_drawn(source, border, top, temperature, tl.load(min_p + row), stream, vocab, tile))
    tl.store(token_ids + row, tl.where(sound, token_id, _NO_TOKEN).to(tl.int64))
    slot = tl.load(history_slot + row).to(tl.int64)
    if sound & (slot >= 0):
        seen = history + slot * vocab + token_id
        tl.store(seen, tl.load(seen) + 2)


@triton.jit
def _border(source, slots, top, temperature, k, p, vocab: tl.constexpr, tile: tl.constexpr):
    """The lowest rank that top-k and then top-p leave."""
    border = tl.max(slots, 0) * 0 + LOWEST + 1
    if (k > 0) & (k < vocab):
        border = find_border(source, slots, border, k, top, temperature, vocab, tile, False)
    if p < 1.0:
        _, total = tally(source, border, top, temperature, vocab, tile, True)
        share = p.to(tl.float64) * total.to(tl.float64)
        whole = share.to(tl.int64)
        wanted = tl.minimum(whole + (whole.to(tl.float64) < share).to(tl.int64), total)
        border = find_border(source, slots, border, wanted, top, temperature, vocab, tile, True)
    return border


@triton.jit
def _drawn(source, border, top, temperature, min_p, stream, vocab: tl.constexpr, tile: tl.constexpr):
    """The rank of the highest gap + noise among the tokens that are left."""
    smallest = tl.where(min_p > 0, log(tl.maximum(min_p, 1e-30)), float("-inf"))
    drawn = tl.full((tile,), LOWEST, tl.int64)
    for start in range(0, vocab, tile):
        score, rank = load_ranks(source, start, vocab, tile)
        gap = gap_of(score, top, temperature)
        left = (rank >= border) & (gap >= smallest)
        if tl.max(left.to(tl.int32), 0) > 0:
            ids = start + tl.arange(0, tile)
            drawn = tl.maximum(drawn, tl.where(left, rank_of(gap + gumbel(stream, ids), ids), LOWEST))
    return tl.max(drawn, 0)


@triton.jit
def _explain(logits, alternatives, token_ids, logprobs, top_ids, top_logprobs, vocab: tl.constexpr, tile: tl.constexpr):
    """Program (row): the chosen token's log probability, and the likeliest tokens one after the other."""
    row = tl.program_id(0).to(tl.int64)
    token_id, wanted = tl.load(token_ids + row), tl.load(alternatives + row)
    if (token_id >= 0) & (wanted >= 0):
        source = logits + row * vocab
        rank = best_below(source, HIGHEST, vocab, tile)
        top = score_of(rank)
        _, mass = tally(source, rank * 0 + LOWEST + 1, top, 1.0, vocab, tile, True)
        divisor = log(mass.to(tl.float32) * _GRID_STEP)
        own = tl.load(source + token_id).to(tl.float32) - top - divisor
        tl.store(logprobs + row, tl.maximum(own, _LOWEST_LOGPROB))
        for place in range(_MOST_ALTERNATIVES):
            at = row * _MOST_ALTERNATIVES + place
            if (place < wanted) & (rank > LOWEST):
                tl.store(top_ids + at, id_of(rank))
                tl.store(top_logprobs + at, tl.maximum(score_of(rank) - top - divisor, _LOWEST_LOGPROB))
                rank = best_below(source, rank, vocab, tile)
            else:
                tl.store(top_ids + at, -1)
                tl.store(top_logprobs + at, 0.0)


def sample(logits: Tensor, table: SamplingTable, scores: Tensor, sampled: Sampled) -> None:
    rows, vocab = logits.shape
    tile = min(_TILE, triton.next_power_of_2(vocab))
    adjust(logits, table, scores)
    _choose[rows,](
        scores,
        table.temperature,
        table.top_k,
        table.top_p,
        table.min_p,
        table.noise_key,
        table.offset,
        table.history_slot,
        table.history,
        sampled.token_ids,
        vocab,
        tile,
        num_warps=_WARPS,
        enable_fp_fusion=False,
    )
    _explain[rows,](
        logits,
        table.alternatives,
        sampled.token_ids,
        sampled.logprobs,
        sampled.top_ids,
        sampled.top_logprobs,
        vocab,
        tile,
        num_warps=_WARPS,
        enable_fp_fusion=False,
    )
