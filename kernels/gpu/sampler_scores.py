"""From logits to scores: bias, penalties, masks and barred tokens; a dense pass over tiles, then the few listed ids."""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls, allow-untyped-decorators
from typing import Final

import triton
import triton.language as tl
from torch import Tensor

from kernels.reference.sampling_table import SamplingTable

_TILE: Final = 1024
_ENTRIES: Final = 128


@triton.jit
def _adjust_tile(
    logits,
    scores,
    repetition,
    frequency,
    presence,
    history_slot,
    history,
    mask_slot,
    mask,
    vocab: tl.constexpr,
    words: tl.constexpr,
    tile: tl.constexpr,
):
    """Program (row, tile)."""
    row = tl.program_id(0).to(tl.int64)
    ids = tl.program_id(1) * tile + tl.arange(0, tile)
    inside = ids < vocab
    raw = tl.load(logits + row * vocab + ids, mask=inside, other=0.0).to(tl.float32)
    score = _penalised(
        raw, row, ids, inside, repetition, frequency, presence, history_slot, history, mask_slot, mask, vocab, words
    )
    tl.store(scores + row * vocab + ids, _or_nan(score, raw), mask=inside)


@triton.jit
def _adjust_listed(
    logits,
    scores,
    repetition,
    frequency,
    presence,
    history_slot,
    history,
    mask_slot,
    mask,
    bias_offsets,
    bias_ids,
    bias_values,
    barred_offsets,
    barred_ids,
    vocab: tl.constexpr,
    words: tl.constexpr,
    entries: tl.constexpr,
):
    """Program (row): writes the scores of biased and barred ids anew."""
    row = tl.program_id(0).to(tl.int64)
    end = tl.load(bias_offsets + row + 1)
    for start in range(tl.load(bias_offsets + row), end, entries):
        entry = start + tl.arange(0, entries)
        inside = entry < end
        ids = tl.load(bias_ids + entry, mask=inside, other=0)
        raw = tl.load(logits + row * vocab + ids, mask=inside, other=0.0).to(tl.float32)
        biased = raw + tl.load(bias_values + entry, mask=inside, other=0.0)
        score = _penalised(
            biased,
            row,
            ids,
            inside,
            repetition,
            frequency,
            presence,
            history_slot,
            history,
            mask_slot,
            mask,
            vocab,
            words,
        )
        tl.store(scores + row * vocab + ids, _or_nan(score, raw), mask=inside)
    tl.debug_barrier()  # an id that is biased and barred is barred: other threads' stores come first
    end = tl.load(barred_offsets + row + 1)
    for start in range(tl.load(barred_offsets + row), end, entries):
        entry = start + tl.arange(0, entries)
        inside = entry < end
        ids = tl.load(barred_ids + entry, mask=inside, other=0)
        raw = tl.load(logits + row * vocab + ids, mask=inside, other=0.0).to(tl.float32)
        tl.store(scores + row * vocab + ids, _or_nan(tl.full(ids.shape, float("-inf"), tl.float32), raw), mask=inside)


@triton.jit
def _penalised(
    score,
    row,
    ids,
    inside,
    repetition,
    frequency,
    presence,
    history_slot,
    history,
    mask_slot,
    mask,
    vocab: tl.constexpr,
    words: tl.constexpr,
):
    """Scores of some ids of a row behind its penalties and its mask."""
    slot = tl.load(history_slot + row).to(tl.int64)
    if slot >= 0:
        seen = tl.load(history + slot * vocab + ids, mask=inside, other=0)
        penalty = tl.load(repetition + row)
        repeated = tl.where(
            score > 0, tl.div_rn(score, tl.full(score.shape, 0.0, tl.float32) + penalty), score * penalty
        )
        score = tl.where(seen > 0, repeated, score)
        counts = seen >> 1
        taken = tl.load(frequency + row) * counts.to(tl.float32) + tl.load(presence + row)
        score = tl.where(counts > 0, score - taken, score)
    slot = tl.load(mask_slot + row).to(tl.int64)
    if slot >= 0:
        word = tl.load(mask + slot * words + ids // 32, mask=inside, other=0)
        score = tl.where(((word >> (ids % 32)) & 1) == 0, float("-inf"), score)
    return score


@triton.jit
def _or_nan(score, raw):
    """NaN where the model's own logit is not finite: as the best of all scores it will be found."""
    return tl.where(tl.abs(raw) < float("inf"), score, float("nan"))


def adjust(logits: Tensor, table: SamplingTable, scores: Tensor) -> None:
    """logits [rows, vocab] -> scores float32 of the same shape."""
    rows, vocab = logits.shape
    tile = min(_TILE, triton.next_power_of_2(vocab))
    shared = (
        logits,
        scores,
        table.repetition_penalty,
        table.frequency_penalty,
        table.presence_penalty,
        table.history_slot,
        table.history,
        table.mask_slot,
        table.mask,
    )
    words = -(-vocab // 32)
    _adjust_tile[rows, triton.cdiv(vocab, tile)](*shared, vocab, words, tile, num_warps=4, enable_fp_fusion=False)
    lists = (table.bias_offsets, table.bias_ids, table.bias_values, table.barred_offsets, table.barred_ids)
    _adjust_listed[rows,](*shared, *lists, vocab, words, _ENTRIES, num_warps=4, enable_fp_fusion=False)
