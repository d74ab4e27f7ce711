"""Rows of scores in blocks of 64 tokens, each with its best; knows no parameters of a request.

The k-th best of the blocks' best has k tokens that are at least as good, so the k best tokens lie in few blocks, and
most others are never looked at.
"""

from typing import Any, Final

import numpy as np

from kernels.cpu.compiling import compiled, inlined, merged
from kernels.cpu.sampling_elementary import FAINTEST, number_of, number_of_32, weight

BLOCK: Final = 64
NOT_FINITE: Final = -1
"""Instead of a token, of a row of logits that are not all finite numbers."""

_INFINITE_32: Final = 0x7F800000  # the bits of float32 infinity
_LEAST_32, _MOST_32, _S31_32 = np.int32(-0x80000000), np.int32(0x7FFFFFFF), np.int32(31)
_LOW_31, _LOW_63 = np.int32(0x7FFFFFFF), np.int64(0x7FFFFFFFFFFFFFFF)
_STRETCH: Final = 1024


@inlined
def _ordered(bits: Any) -> Any:
    """The bits of a float64 as a whole number that is ordered as it; its own inverse. -0 comes before 0."""
    return bits ^ ((bits >> 63) & _LOW_63)


@merged
def _extremes(bits: Any, length: Any) -> Any:
    """The largest and the smallest float32 among some, as whole numbers that are ordered as they are; -0 before 0."""
    high, low = _LEAST_32, _MOST_32
    for index in range(length):
        key = np.int32(bits[index] ^ np.int32(np.int32(bits[index] >> _S31_32) & _LOW_31))
        high, low = max(high, key), min(low, key)
    return high, low


@merged
def best_of_row(logits: Any) -> Any:
    """The lowest id of the largest of finite float32 logits, or NOT_FINITE."""
    best, best_at, least = _LEAST_32, 0, _MOST_32
    for start in range(0, len(logits), _STRETCH):
        stretch = logits[start : start + _STRETCH]
        high, low = _extremes(stretch.view(np.int32), len(stretch))
        if high == 0:  # as much as -0, which may come first
            high = np.int32(-1)
        if high > best:
            best, best_at = high, start
        least = min(least, low)
    if best >= _INFINITE_32 or least < -_INFINITE_32:
        return NOT_FINITE
    stretch, place = logits[best_at : best_at + _STRETCH], 0
    for index in range(1, len(stretch)):
        if stretch[index] > stretch[place]:
            place = index
    return best_at + place


@inlined
def _widen_block(logits: Any, scores: Any, start: Any, length: Any) -> Any:
    own, wide = logits[start : start + length], scores[start : start + length]
    for index in range(length):
        wide[index] = own[index]
    return _extremes(own.view(np.int32), length)


@compiled
def widen(logits: Any, scores: Any, maxima: Any) -> Any:
    """scores = logits in float64, and the best of each block. Whether all are finite."""
    best, least, whole = _LEAST_32, _MOST_32, len(logits) // BLOCK
    for block in range(len(maxima)):
        start = block * BLOCK
        if block < whole:  # a length that the compiler knows makes this twice as fast
            high, low = _widen_block(logits, scores, start, BLOCK)
        else:
            high, low = _widen_block(logits, scores, start, len(logits) - start)
        maxima[block] = number_of_32(np.int32(high ^ np.int32(np.int32(high >> _S31_32) & _LOW_31)))
        best, least = max(best, high), min(least, low)
    return best < _INFINITE_32 and least >= -_INFINITE_32


@compiled
def find_maxima(scores: Any, maxima: Any) -> None:
    """The best score of each block."""
    for block in range(len(maxima)):
        bits = scores[block * BLOCK : (block + 1) * BLOCK].view(np.int64)
        high = _LOW_63 ^ np.int64(-1)
        for index in range(len(bits)):
            high = max(high, _ordered(bits[index]))
        maxima[block] = number_of(_ordered(high))


@compiled
def largest(maxima: Any) -> Any:
    best = maxima[0]
    for block in range(len(maxima)):
        best = max(best, maxima[block])
    return best


@compiled
def place_of_equal(scores: Any, maxima: Any, value: Any, count: Any) -> Any:
    """The id of the `count`-th token of that score."""
    for block in range(len(maxima)):
        if maxima[block] >= value:
            for index in range(block * BLOCK, min((block + 1) * BLOCK, len(scores))):
                if scores[index] == value:
                    count -= 1
                    if count == 0:
                        return index
    return len(scores)


@compiled
def gather(scores: Any, maxima: Any, least: Any, values: Any) -> Any:
    """All scores of at least that much. How many."""
    count = 0
    for block in range(len(maxima)):
        if maxima[block] >= least:
            own = scores[block * BLOCK : (block + 1) * BLOCK]
            for index in range(len(own)):  # written in any case: a branch that nobody can foresee costs more
                values[count] = own[index]
                count += own[index] >= least
    return count


@inlined
def _mass_of_block(scores: Any, start: Any, length: Any, best: Any, sharpness: Any) -> Any:
    own, total = scores[start : start + length], np.int64(0)
    for index in range(length):
        total += weight((own[index] - best) * sharpness)
    return total


@merged
def mass_of_row(scores: Any, maxima: Any, best: Any, sharpness: Any) -> Any:
    """The sum of all weights."""
    total, whole = np.int64(0), len(scores) // BLOCK
    for block in range(len(maxima)):
        if (maxima[block] - best) * sharpness > FAINTEST:
            start = block * BLOCK
            if block < whole:
                total += _mass_of_block(scores, start, BLOCK, best, sharpness)
            else:
                total += _mass_of_block(scores, start, len(scores) - start, best, sharpness)
    return total
