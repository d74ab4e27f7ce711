"""Ranks, whole numbers that order a row's tokens by score and then by lowest id, and searches among them.

rank = score's bits, made to ascend with the score, << 32 | (2^31 - 1 - id)

No two tokens of a row have the same rank, so "the best", "the k best" and "the fewest whose weights reach so much" are
sets {rank >= border}, and maxima, counts and sums of weights (whole multiples of 2^-40) find them in any order.
"""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls, allow-untyped-decorators
from typing import Final

import triton
import triton.language as tl

from kernels.gpu.activation import exp2
from kernels.reference.activation import LOG2_E
from kernels.reference.sampling import GRID

_LOG2_E: Final = tl.constexpr(LOG2_E)
_GRID: Final = tl.constexpr(GRID)
LOWEST: Final = tl.constexpr(-(1 << 63))
HIGHEST: Final = tl.constexpr((1 << 63) - 1)
_ID_BITS: Final = tl.constexpr((1 << 31) - 1)
_NAN: Final = tl.constexpr(0x7FC00000)
# Tiles under way at a time: without a tensor core's product a loop has to ask for it.
_STAGES: Final = tl.constexpr(3)


@triton.jit
def rank_of(score, ids):
    """int64. NaN of either sign is above every number, and -0 equals 0."""
    bits = tl.where(score == score, (score + 0.0).to(tl.int32, bitcast=True), _NAN)
    return (_flipped(bits).to(tl.int64) << 32) | (ids ^ _ID_BITS).to(tl.int64)


@triton.jit
def score_of(rank):
    return _flipped((rank >> 32).to(tl.int32)).to(tl.float32, bitcast=True)


@triton.jit
def id_of(rank):
    return ((rank & _ID_BITS) ^ _ID_BITS).to(tl.int32)


@triton.jit
def _flipped(bits):
    """float32 bits <-> int32 that ascends with the number: the magnitude of negative ones is turned over."""
    return bits ^ ((bits >> 31) & _ID_BITS)


@triton.jit
def gap_of(score, top, temperature):
    """(score - top) / temperature"""
    return tl.div_rn(score - top, tl.full(score.shape, 0.0, tl.float32) + temperature)


@triton.jit
def weight(gap):
    """e^gap for gaps of at most 0, in whole multiples of 2^-40, rounded down. int64."""
    return (exp2(gap * _LOG2_E) * _GRID).to(tl.int64)


@triton.jit
def load_ranks(source, start, vocab: tl.constexpr, tile: tl.constexpr):
    """Scores and ranks of the tokens from `start` on; beyond the vocabulary -inf and the lowest rank."""
    ids = start + tl.arange(0, tile)
    score = tl.load(source + ids, mask=ids < vocab, other=float("-inf")).to(tl.float32)
    return score, tl.where(ids < vocab, rank_of(score, ids), LOWEST)


@triton.jit
def slot_bests(source, limit, vocab: tl.constexpr, tile: tl.constexpr):
    """[tile]: of the ids s, s + tile, s + 2 tile ... the highest rank below `limit`; LOWEST if there is none."""
    best = tl.full((tile,), LOWEST, tl.int64)
    for start in tl.range(0, vocab, tile, num_stages=_STAGES):
        _, rank = load_ranks(source, start, vocab, tile)
        best = tl.maximum(best, tl.where(rank < limit, rank, LOWEST))
    return best


@triton.jit
def best_below(source, limit, vocab: tl.constexpr, tile: tl.constexpr):
    """The highest rank below `limit` in a row; LOWEST if there is none."""
    return tl.max(slot_bests(source, limit, vocab, tile), 0)


@triton.jit
def tally(source, border, top, temperature, vocab: tl.constexpr, tile: tl.constexpr, weighs: tl.constexpr):
    """How many ranks reach `border`, which is above LOWEST, and what they weigh together (0 unless asked). int64."""
    count, mass = tl.zeros((tile,), tl.int64), tl.zeros((tile,), tl.int64)
    for start in tl.range(0, vocab, tile, num_stages=_STAGES):
        score, rank = load_ranks(source, start, vocab, tile)
        count += (rank >= border).to(tl.int64)
        if weighs:
            mass += tl.where(rank >= border, weight(gap_of(score, top, temperature)), 0)
    return tl.sum(count, 0), tl.sum(mass, 0)


@triton.jit
def tally_slots(slots, border, top, temperature, weighs: tl.constexpr):
    """`tally` of the slots' bests alone."""
    reached = slots >= border
    mass = tl.zeros(slots.shape, tl.int64)
    if weighs:
        score = tl.where(reached, score_of(slots), top)  # an empty slot's would be NaN
        mass = tl.where(reached, weight(gap_of(score, top, temperature)), 0)
    return tl.sum(reached.to(tl.int64), 0), tl.sum(mass, 0)


@triton.jit
def find_border(
    source, slots, floor, wanted, top, temperature, vocab: tl.constexpr, tile: tl.constexpr, weighs: tl.constexpr
):
    """The highest border whose ranks reach `wanted`, as a count or as a weight; `floor` is a border that does.

    What the slots' bests reach, all ranks reach: so a border is found among those first, in registers, and only what is
    above it is searched in the row. Of top-k that leaves next to nothing, since few of the best share a slot.
    """
    low, high = floor, tl.max(slots, 0) + 1
    count, mass = tally_slots(slots, floor * 0 + LOWEST + 1, top, temperature, weighs)
    if (mass if weighs else count) >= wanted:
        among_slots = _halved(
            source, slots, floor * 0 + LOWEST + 1, count, high, wanted, top, temperature, vocab, tile, weighs, True
        )
        low = tl.maximum(low, among_slots)
    count, _ = tally(source, low, top, temperature, vocab, tile, False)
    return _halved(source, slots, low, count, high, wanted, top, temperature, vocab, tile, weighs, False)


@triton.jit
def _halved(
    source,
    slots,
    low,
    low_count,
    high,
    wanted,
    top,
    temperature,
    vocab: tl.constexpr,
    tile: tl.constexpr,
    weighs: tl.constexpr,
    of_slots: tl.constexpr,
):
    """The highest border that reaches `wanted`: `low` does, with `low_count` ranks, `high` is above all of them.

    Done as soon as one rank is left between the two, or the count is as wanted; 64 halvings at most.
    """
    high_count = low_count * 0
    while (low_count - high_count > 1) & ((low_count != wanted) | weighs):
        middle = (low >> 1) + (high >> 1) + (low & high & 1)
        if of_slots:
            count, mass = tally_slots(slots, middle, top, temperature, weighs)
        else:
            count, mass = tally(source, middle, top, temperature, vocab, tile, weighs)
        reached = (mass if weighs else count) >= wanted
        low, low_count = tl.where(reached, middle, low), tl.where(reached, count, low_count)
        high, high_count = tl.where(reached, high, middle), tl.where(reached, high_count, count)
    return low
