"""Tokens and log probabilities from rows of logits, compiled; knows arrays and addresses of nothing, no requests.

`engine.sampler` and `engine.logprobs` say what is computed, in numpy; this computes the same bits from the same
operations, and looks at far fewer tokens. Everything stands in this one file because numba's cache notices a change in
the file of the function that it compiled, and not in files of those it calls.

A row is looked at in blocks of 64 tokens, each with its best score. The k-th best of those has k tokens that are at
least as good, so the k best tokens lie in few blocks; and a block whose best token would need more noise than its
tokens have is not looked at again.

No float is added to another in an order that could change: masses are whole numbers, all else works on single tokens.
"""

from typing import Any, Final

import numpy as np
from numba import njit, types
from numba.extending import intrinsic
from numpy.typing import NDArray

BLOCK: Final = 64
PARAMETERS: Final = 7
"""Of a row: sharpness (0: greedy), top_k, top_p, smallest gap, repetition, frequency and presence penalty."""
NOT_FINITE: Final = -1
NOTHING_LEFT: Final = -2

_SHARPNESS, _TOP_K, _TOP_P, _SMALLEST_GAP, _REPETITION, _FREQUENCY, _PRESENCE = range(PARAMETERS)

_GOLDEN, _MIX_1, _MIX_2 = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_S12, _S27, _S30, _S31 = np.uint64(12), np.uint64(27), np.uint64(30), np.uint64(31)
_ALL_ONES: Final = np.uint64(0xFFFFFFFFFFFFFFFF)
_NOISE_BITS: Final = 52

_INFINITY: Final = float("inf")
_INFINITE_32: Final = 0x7F800000  # the bits of float32 infinity
_LEAST_32, _MOST_32, _S31_32 = np.int32(-0x80000000), np.int32(0x7FFFFFFF), np.int32(31)
_LOW_31, _LOW_63 = np.int32(0x7FFFFFFF), np.int64(0x7FFFFFFFFFFFFFFF)
_STRETCH: Final = 1024
# No 52 random bits give more.
_MOST_NOISE: Final = 37.0

_LOG2_E: Final = 1.4426950408889634
_LN2_HIGH: Final = float.fromhex("0x1.62e42feep-1")
_LN2_LOW: Final = float.fromhex("0x1.a39ef35793c76p-33")
_SQRT_HALF: Final = 0.7071067811865476
_FAINTEST: Final = -30.0
_EXP_SERIES: Final = tuple(1.0 / float(np.prod(np.arange(1.0, n + 1))) for n in range(10, -1, -1))
_LOG_SERIES: Final = tuple(1.0 / (2 * n + 1) for n in range(11, -1, -1))
_GRID_BITS: Final = 40
_FIRST_BLOCKS: Final = 16
_MANY: Final = 512
_RANGES: Final = 2048
_RANGES_PER_UNIT: Final = 64.0
# Added to a number below 2^51 this leaves its nearest whole number in the low bits.
_ROUNDER: Final = 1.5 * 2.0**52
_ROUNDER_BITS: Final = 0x4338000000000000


def _same_bits(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    return builder.bitcast(arguments[0], context.get_value_type(signature.return_type))


def _bits_of_number(typing_context: Any, number: Any) -> Any:
    """The bits of a float64 as an int64."""
    return types.int64(types.float64), _same_bits


def _number_of_bits(typing_context: Any, bits: Any) -> Any:
    """The float64 that has the bits of an int64."""
    return types.float64(types.int64), _same_bits


def _number_of_bits_32(typing_context: Any, bits: Any) -> Any:
    """The float32 that has the bits of an int32."""
    return types.float32(types.int32), _same_bits


_bits: Any = intrinsic(_bits_of_number)
_number_32: Any = intrinsic(_number_of_bits_32)
_number: Any = intrinsic(_number_of_bits)

_small = njit(nogil=True, error_model="numpy", forceinline=True)
_part = njit(nogil=True, error_model="numpy")
_whole = njit(nogil=True, error_model="numpy", cache=True)


@_small
def _weight(gap: Any) -> Any:
    """exp(gap) on a grid of 2^-40; gap <= 0."""
    near = gap if gap > _FAINTEST else _FAINTEST
    shifted = near * _LOG2_E + _ROUNDER
    exponent = shifted - _ROUNDER
    r = (near - exponent * _LN2_HIGH) - exponent * _LN2_LOW
    c = _EXP_SERIES
    power = (((((c[0] * r + c[1]) * r + c[2]) * r + c[3]) * r + c[4]) * r + c[5]) * r
    power = (((((power + c[6]) * r + c[7]) * r + c[8]) * r + c[9]) * r) + c[10]
    scale = _number((_bits(shifted) + (1023 + _GRID_BITS)) << 52)
    return _bits(power * scale + _ROUNDER) - _ROUNDER_BITS


@_small
def _log(x: Any) -> Any:
    """Natural logarithm of a normal, positive number."""
    bits = _bits(x)
    exponent = float((bits >> 52) - 1022)
    mantissa = _number((bits & 0x000FFFFFFFFFFFFF) | 0x3FE0000000000000)
    if mantissa < _SQRT_HALF:
        mantissa *= 2.0
        exponent -= 1.0
    f = (mantissa - 1.0) / (mantissa + 1.0)
    square = f * f
    c = _LOG_SERIES
    series = (((((c[0] * square + c[1]) * square + c[2]) * square + c[3]) * square + c[4]) * square + c[5]) * square
    series = (((((series + c[6]) * square + c[7]) * square + c[8]) * square + c[9]) * square + c[10]) * square + c[11]
    return exponent * _LN2_HIGH + (f * 2.0 * series + exponent * _LN2_LOW)


@_small
def _mixed(z: Any) -> Any:
    z = (z ^ (z >> _S30)) * _MIX_1
    z = (z ^ (z >> _S27)) * _MIX_2
    return z ^ (z >> _S31)


@_small
def _random(key: Any, token: Any) -> Any:
    return _mixed(np.uint64(token) * _GOLDEN + key)


@_small
def _gumbel(random: Any) -> Any:
    uniform = (float(np.int64(random >> _S12)) + 0.5) * 2.0**-_NOISE_BITS
    return -_log(-_log(uniform))


@_small
def _least_random(noise: Any) -> Any:
    """No smaller 64 random bits give as much noise.

    noise >= x  <=>  1 - uniform <= 1 - exp(-exp(-x)), which is less than exp(-x). The margin is far wider than any
    rounding, and costs a look at a token in a million.
    """
    if noise <= 1e-5:
        return np.uint64(0)
    from_top = np.exp(-noise) * (1.0 + 1e-6) * 2.0**_NOISE_BITS + 1.0
    return _ALL_ONES - (np.uint64(np.int64(from_top)) << _S12)


@_small
def _ordered(bits: Any) -> Any:
    """The bits of a float64 as a whole number that is ordered as it; its own inverse. -0 comes before 0."""
    return bits ^ ((bits >> 63) & _LOW_63)


@_small
def _extremes(bits: Any, length: Any) -> Any:
    """The largest and the smallest float32 among some, as whole numbers that are ordered as they are; -0 before 0."""
    high, low = _LEAST_32, _MOST_32
    for index in range(length):
        key = np.int32(bits[index] ^ np.int32(np.int32(bits[index] >> _S31_32) & _LOW_31))
        high, low = max(high, key), min(low, key)
    return high, low


@_part
def _best_of_row(logits: Any) -> Any:
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


@_small
def _widen_block(logits: Any, scores: Any, start: Any, length: Any) -> Any:
    own, wide = logits[start : start + length], scores[start : start + length]
    for index in range(length):
        wide[index] = own[index]
    return _extremes(own.view(np.int32), length)


@_part
def _widen(logits: Any, scores: Any, maxima: Any) -> Any:
    """scores = logits in float64, and the best of each block. Whether all are finite."""
    best, least, whole = _LEAST_32, _MOST_32, len(logits) // BLOCK
    for block in range(len(maxima)):
        start = block * BLOCK
        if block < whole:  # a length that the compiler knows makes this twice as fast
            high, low = _widen_block(logits, scores, start, BLOCK)
        else:
            high, low = _widen_block(logits, scores, start, len(logits) - start)
        maxima[block] = _number_32(np.int32(high ^ np.int32(np.int32(high >> _S31_32) & _LOW_31)))
        best, least = max(best, high), min(least, low)
    return best < _INFINITE_32 and least >= -_INFINITE_32


@_part
def _block_maxima(scores: Any, maxima: Any) -> None:
    """The best score of each block."""
    for block in range(len(maxima)):
        bits = scores[block * BLOCK : (block + 1) * BLOCK].view(np.int64)
        high = _LOW_63 ^ np.int64(-1)
        for index in range(len(bits)):
            high = max(high, _ordered(bits[index]))
        maxima[block] = _number(_ordered(high))


@_part
def _around_border(values: Any, masses: Any, count: Any, wanted: Any) -> Any:
    """Moves to the front those that share the border's part of the range. How many, and the mass wanted of them.

    Without a branch that nobody can foresee, which is what makes quickselect slow. Parts are cut by one rounded formula
    that never grows with the value, so wherever it rounds, no better value stands in a later part.
    """
    best = -_INFINITY
    for index in range(count):
        best = max(best, values[index])
    sums = np.zeros(_RANGES, dtype=np.int64)
    for index in range(count):
        sums[_range_of(values[index], best)] += masses[index]
    border = 0
    while sums[border] < wanted:
        wanted -= sums[border]
        border += 1
    kept = 0
    for index in range(count):
        value, mass = values[index], masses[index]
        values[kept], masses[kept] = value, mass
        kept += _range_of(value, best) == border
    return kept, wanted


@_small
def _range_of(value: Any, best: Any) -> Any:
    """From 0 for the best value to the last range, which takes everything far below."""
    below = (best - value) * _RANGES_PER_UNIT
    return np.int64(below) if below < _RANGES else _RANGES - 1


@_part
def _border(values: Any, masses: Any, count: Any, wanted: Any) -> Any:
    """Of the shortest run of best values whose masses reach `wanted`: its last value, and how many equal ones it needs.

    Reorders both arrays, and forgets some of them. All masses together reach `wanted`; equal values have equal masses.
    Quickselect, among what lies in the border's part of their range where there are many.
    """
    if count > _MANY:
        count, wanted = _around_border(values, masses, count, wanted)
    low, high = 0, count
    while True:
        first, middle, last = values[low], values[(low + high) // 2], values[high - 1]
        pivot = max(min(first, middle), min(max(first, middle), last))
        above, equal, index, end = low, low, low, high
        mass_above = mass_equal = mass = np.int64(0)
        # | above: greater | equal to the pivot | unknown | end: smaller |
        while index < end:
            value, mass = values[index], masses[index]
            if value > pivot:
                values[index], masses[index] = values[above], masses[above]
                values[above], masses[above] = value, mass
                mass_above += mass
                above += 1
                index += 1
            elif value < pivot:
                end -= 1
                values[index], masses[index] = values[end], masses[end]
                values[end], masses[end] = value, mass
            else:
                mass_equal += mass
                index += 1
        equal = end - above
        if mass_above >= wanted:
            high = above
        elif mass_above + mass_equal >= wanted:
            rest = wanted - mass_above
            each = mass_equal // equal
            return pivot, (rest + each - 1) // each
        else:
            wanted -= mass_above + mass_equal
            low = end


@_part
def _gather(scores: Any, maxima: Any, least: Any, values: Any) -> Any:
    """All scores of at least that much. How many."""
    count = 0
    for block in range(len(maxima)):
        if maxima[block] >= least:
            own = scores[block * BLOCK : (block + 1) * BLOCK]
            for index in range(len(own)):  # written in any case: a branch that nobody can foresee costs more
                values[count] = own[index]
                count += own[index] >= least
    return count


@_part
def _good_enough(maxima: Any, count: Any, values: Any, masses: Any) -> Any:
    """A score that at least `count` tokens have, by the blocks' best alone."""
    if count > len(maxima):
        return -_INFINITY
    for block in range(len(maxima)):
        values[block] = maxima[block]
        masses[block] = 1
    return _border(values, masses, len(maxima), count)[0]


@_part
def _border_of_best(scores: Any, maxima: Any, count: Any, values: Any, masses: Any) -> Any:
    """The last of the `count` best scores, and how many equal ones are among them."""
    many = _gather(scores, maxima, _good_enough(maxima, count, values, masses), values)
    for index in range(many):
        masses[index] = 1
    return _border(values, masses, many, count)


@_part
def _border_of_share(scores: Any, maxima: Any, best: Any, own: Any, values: Any, masses: Any) -> Any:
    """The last of the best scores whose weights reach top_p of all, and how many equal ones they need.

    All that are left of top-k, where there is one.
    """
    sharpness, top_k = own[_SHARPNESS], np.int64(own[_TOP_K])
    if 0 < top_k < len(scores):
        last = _border_of_best(scores, maxima, top_k, values, masses)[0]
        count = _gather(scores, maxima, last, values)
        kept = 0
        for index in range(count):
            values[kept] = values[index]
            kept += values[index] > last
        for index in range(kept, top_k):
            values[index] = last
        wanted = _share(own[_TOP_P], _weigh(values, masses, top_k, best, sharpness))
        return _border(values, masses, top_k, wanted)
    wanted = _share(own[_TOP_P], _mass(scores, maxima, best, sharpness))
    blocks = _FIRST_BLOCKS
    while True:
        count = _gather(scores, maxima, _good_enough(maxima, blocks, values, masses), values)
        if _weigh(values, masses, count, best, sharpness) >= wanted:
            return _border(values, masses, count, wanted)
        blocks *= _FIRST_BLOCKS


@_part
def _weigh(values: Any, masses: Any, count: Any, best: Any, sharpness: Any) -> Any:
    """The weights of some scores, and their sum."""
    total = np.int64(0)
    for index in range(count):
        masses[index] = _weight((values[index] - best) * sharpness)
        total += masses[index]
    return total


@_small
def _mass_of_block(scores: Any, start: Any, length: Any, best: Any, sharpness: Any) -> Any:
    own, total = scores[start : start + length], np.int64(0)
    for index in range(length):
        total += _weight((own[index] - best) * sharpness)
    return total


@_part
def _mass(scores: Any, maxima: Any, best: Any, sharpness: Any) -> Any:
    """The sum of all weights."""
    total, whole = np.int64(0), len(scores) // BLOCK
    for block in range(len(maxima)):
        if (maxima[block] - best) * sharpness > _FAINTEST:
            start = block * BLOCK
            if block < whole:
                total += _mass_of_block(scores, start, BLOCK, best, sharpness)
            else:
                total += _mass_of_block(scores, start, len(scores) - start, best, sharpness)
    return total


@_part
def _largest(maxima: Any) -> Any:
    best = maxima[0]
    for block in range(len(maxima)):
        best = max(best, maxima[block])
    return best


@_small
def _share(top_p: Any, total: Any) -> Any:
    return min(np.int64(np.ceil(top_p * float(total))), total)


@_part
def _last_equal(scores: Any, maxima: Any, value: Any, count: Any) -> Any:
    """The id of the `count`-th token of that score."""
    for block in range(len(maxima)):
        if maxima[block] >= value:
            for index in range(block * BLOCK, min((block + 1) * BLOCK, len(scores))):
                if scores[index] == value:
                    count -= 1
                    if count == 0:
                        return index
    return len(scores)


@_part
def _draw(scores: Any, maxima: Any, best: Any, own: Any, key: Any, border: Any, last_equal: Any, first: Any) -> Any:
    """The token of the highest gap + noise among those above the border, and those equal to it up to an id.

    Starts from `first`, the best one: few others can beat its noise.
    """
    sharpness, least_gap = own[_SHARPNESS], own[_SMALLEST_GAP]
    chosen, highest = first, _gumbel(_random(key, first))
    for block in range(len(maxima)):
        needed = highest - (maxima[block] - best) * sharpness
        if maxima[block] < border or needed > _MOST_NOISE:
            continue
        least = _least_random(needed)
        start, end = block * BLOCK, min((block + 1) * BLOCK, len(scores))
        lucky = 0
        for index in range(start, end):
            lucky += _random(key, index) >= least
        if lucky == 0:
            continue
        for index in range(start, end):
            random, score = _random(key, index), scores[index]
            gap = (score - best) * sharpness
            if random < least or gap < least_gap or score < border or (score == border and index > last_equal):
                continue
            total = gap + _gumbel(random)
            if total > highest or (total == highest and index < chosen):
                chosen, highest = index, total
    return chosen


@_part
def _adjust(scores: Any, own: Any, edges: Any, ids: Any, amounts: Any) -> None:
    """Bias, penalties and bars, in place.

    edges  | biases ... | seen tokens, with their count in the output ... | barred ... |
    """
    for index in range(edges[0], edges[1]):
        scores[ids[index]] += amounts[index]
    for index in range(edges[1], edges[2]):
        token, times = ids[index], amounts[index]
        score = scores[token]
        if own[_REPETITION] != 1.0:
            score = score / own[_REPETITION] if score > 0.0 else score * own[_REPETITION]
        if times > 0.0:
            score -= own[_FREQUENCY] * times + own[_PRESENCE]
        scores[token] = score
    for index in range(edges[2], edges[3]):
        scores[ids[index]] = -_INFINITY


@_part
def _mask(scores: Any, mask: Any) -> None:
    for index in range(len(scores)):
        if not (mask[index >> 5] >> np.uint32(index & 31)) & np.uint32(1):
            scores[index] = -_INFINITY


@_part
def _sample_adjusted(scores: Any, maxima: Any, own: Any, key: Any, values: Any, masses: Any) -> Any:
    """A token from a row of adjusted scores, or NOTHING_LEFT."""
    best = _largest(maxima)
    if best == -_INFINITY:
        return NOTHING_LEFT
    first = _last_equal(scores, maxima, best, 1)
    if own[_SHARPNESS] == 0.0:
        return first
    border, last_equal = -_INFINITY, len(scores)
    if own[_TOP_P] < 1.0:
        border, equal = _border_of_share(scores, maxima, best, own, values, masses)
        last_equal = _last_equal(scores, maxima, border, equal)
    elif 0 < own[_TOP_K] < len(scores):
        border, equal = _border_of_best(scores, maxima, np.int64(own[_TOP_K]), values, masses)
        last_equal = _last_equal(scores, maxima, border, equal)
    return _draw(scores, maxima, best, own, key, border, last_equal, first)


@_whole
def sample_rows(
    logits: Any,
    parameters: Any,
    keys: Any,
    offsets: Any,
    edges: Any,
    edited: Any,
    amounts: Any,
    mask_of: Any,
    masks: Any,
    part: Any,
    scores: Any,
    maxima: Any,
    values: Any,
    masses: Any,
    tokens: Any,
) -> None:
    """A token for every `len(scores)`-th row of float32 logits [rows, vocab], from row `part` on.

    parameters [rows, PARAMETERS] and keys, offsets [rows] of the noise; edges [rows, 4] bound three runs of `edited`
    ids and `amounts`; mask_of [rows] is a row of masks [masks, vocab / 32] or -1. From `scores` to `masses`: room to
    work in, one row for each part. Fills tokens [rows]: a token, NOT_FINITE or NOTHING_LEFT.
    """
    for row in range(part, len(logits), len(scores)):
        own = parameters[row]
        plain = edges[row, 0] == edges[row, 3] and mask_of[row] < 0
        if plain and own[_SHARPNESS] == 0.0:
            tokens[row] = _best_of_row(logits[row])
        elif not _widen(logits[row], scores[part], maxima[part]):
            tokens[row] = NOT_FINITE
        else:
            if not plain:
                if mask_of[row] >= 0:
                    _mask(scores[part], masks[mask_of[row]])
                _adjust(scores[part], own, edges[row], edited, amounts)
                _block_maxima(scores[part], maxima[part])
            key = _mixed(keys[row] + offsets[row] * _GOLDEN)
            tokens[row] = _sample_adjusted(scores[part], maxima[part], own, key, values[part], masses[part])


@_part
def _rank(scores: Any, maxima: Any, border: Any, equal: Any, named: Any) -> None:
    """Writes the tokens above the border, and the first so many equal to it, behind the first of `named`: best first,
    equal ones by id."""
    count = 0
    for block in range(len(maxima)):
        if maxima[block] >= border:
            for index in range(block * BLOCK, min((block + 1) * BLOCK, len(scores))):
                score = scores[index]
                if score < border or (score == border and equal == 0):
                    continue
                equal -= score == border
                count += 1
                place = count
                while place > 1 and scores[named[place - 1]] < score:
                    named[place] = named[place - 1]
                    place -= 1
                named[place] = index


@_whole
def explain_rows(
    logits: Any,
    rows: Any,
    named: Any,
    part: Any,
    scores: Any,
    maxima: Any,
    values: Any,
    masses: Any,
    totals: Any,
    gaps: Any,
) -> None:
    """For every `len(scores)`-th of `rows`: the sum of its weights, and the tokens to name with their gaps.

    `named` [len(rows), 1 + alternatives] comes with the token in question in its first column; fills the others, best
    first, and `gaps` [len(rows), 1 + alternatives], `totals` [len(rows)]. A total of 0: the row is not finite.
    """
    alternatives = named.shape[1] - 1
    for index in range(part, len(rows), len(scores)):
        own = scores[part]
        if not _widen(logits[rows[index]], own, maxima[part]):
            totals[index] = 0
            continue
        best = _largest(maxima[part])
        totals[index] = _mass(own, maxima[part], best, 1.0)
        if alternatives:
            border, equal = _border_of_best(own, maxima[part], alternatives, values[part], masses[part])
            _rank(own, maxima[part], border, equal, named[index])
        for place in range(alternatives + 1):
            gaps[index, place] = own[named[index, place]] - best


Room = tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]]


def new_room(parts: int, vocab_size: int) -> Room:
    """What both functions work in: `scores`, `maxima`, `values`, `masses`."""
    shape = parts, vocab_size
    blocks = parts, -(-vocab_size // BLOCK)
    return np.empty(shape), np.empty(blocks), np.empty(shape), np.empty(shape, dtype=np.int64)
