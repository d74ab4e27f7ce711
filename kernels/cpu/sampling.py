"""Tokens and log probabilities from rows of logits, compiled; knows arrays and addresses of nothing, no requests.

`engine.sampler` and `engine.logprobs` say what is computed, in numpy; this computes the same bits from the same
operations, and looks at far fewer tokens. Everything stands in this one file because numba's cache notices a change in
the file of the function that it compiled, and not in files of those it calls.

A row is looked at in blocks of 64 tokens, each with its best score. The k-th best block has k tokens at least as good
before it, so the k best tokens lie in few blocks; and a block whose best token would need more noise than its tokens
have is not looked at again.

No float is added to another in an order that could change: masses are whole numbers, all else works on single tokens.
"""

from typing import Any, Final

import numpy as np
from numba import njit, types
from numba.extending import intrinsic
from numpy.typing import NDArray

BLOCK: Final = 64
PARAMETERS: Final = 7
"""Of a row: temperature, top_k, top_p, smallest gap, repetition, frequency and presence penalty."""
NOT_FINITE: Final = -1
NOTHING_LEFT: Final = -2

_TEMPERATURE, _TOP_K, _TOP_P, _SMALLEST_GAP, _REPETITION, _FREQUENCY, _PRESENCE = range(PARAMETERS)

_GOLDEN, _MIX_1, _MIX_2 = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_S12, _S27, _S30, _S31 = np.uint64(12), np.uint64(27), np.uint64(30), np.uint64(31)
_ALL_ONES: Final = np.uint64(0xFFFFFFFFFFFFFFFF)
_NOISE_BITS: Final = 52

_INFINITY: Final = float("inf")
_INFINITE_32: Final = 0x7F800000  # the bits of float32 infinity
_LOW_31, _LOW_63 = np.int32(0x7FFFFFFF), np.int64(0x7FFFFFFFFFFFFFFF)

_LOG2_E: Final = 1.4426950408889634
_LN2_HIGH: Final = float.fromhex("0x1.62e42feep-1")
_LN2_LOW: Final = float.fromhex("0x1.a39ef35793c76p-33")
_SQRT_HALF: Final = 0.7071067811865476
_FAINTEST: Final = -30.0
_EXP_SERIES: Final = tuple(1.0 / float(np.prod(np.arange(1.0, n + 1))) for n in range(10, -1, -1))
_LOG_SERIES: Final = tuple(1.0 / (2 * n + 1) for n in range(11, -1, -1))
_GRID_BITS: Final = 40
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


_bits: Any = intrinsic(_bits_of_number)
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


@_part
def _best_of_row(logits: Any) -> Any:
    """The lowest id of the largest of finite float32 logits, or NOT_FINITE."""
    bits = logits.view(np.int32)
    best, best_at, least = np.int32(-0x80000000), 0, np.int32(0x7FFFFFFF)
    for start in range(0, len(bits), 1024):
        end = min(start + 1024, len(bits))
        high, low = np.int32(-0x80000000), np.int32(0x7FFFFFFF)
        for index in range(start, end):
            key = bits[index] ^ ((bits[index] >> np.int32(31)) & _LOW_31)
            high = max(high, key)
            low = min(low, key)
        if high == 0:  # as much as -0, which may come first
            high = np.int32(-1)
        if high > best:
            best, best_at = high, start
        least = min(least, low)
    if best >= _INFINITE_32 or least <= -_INFINITE_32 - 1:
        return NOT_FINITE
    largest = logits[best_at]
    found = best_at
    for index in range(best_at + 1, min(best_at + 1024, len(bits))):
        if logits[index] > largest:
            largest, found = logits[index], index
    return found


@_part
def _widen(logits: Any, scores: Any) -> Any:
    """scores = logits in float64. Whether all are finite."""
    bits = logits.view(np.int32)
    largest = np.int32(0)
    for index in range(len(bits)):
        largest = max(largest, bits[index] & _LOW_31)
        scores[index] = logits[index]
    return largest < _INFINITE_32


@_part
def _block_maxima(scores: Any, maxima: Any) -> Any:
    """The best score of each block, and of all."""
    bits = scores.view(np.int64)
    best = -_INFINITY
    for block in range(len(maxima)):
        start = block * BLOCK
        high = _LOW_63 ^ np.int64(-1)
        for index in range(start, min(start + BLOCK, len(bits))):
            high = max(high, _ordered(bits[index]))
        maxima[block] = _number(_ordered(high))
        best = max(best, maxima[block])
    return best


@_part
def _lowest_of_best(scores: Any, maxima: Any, best: Any) -> Any:
    for block in range(len(maxima)):
        if maxima[block] == best:
            for index in range(block * BLOCK, len(scores)):
                if scores[index] == best:
                    return index
    return NOTHING_LEFT


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
def _gather(scores: Any, maxima: Any, least: Any, ids: Any, found: Any) -> Any:
    """Ids and scores of all tokens of at least that score, ascending by id. How many."""
    count = 0
    for block in range(len(maxima)):
        if maxima[block] >= least:
            for index in range(block * BLOCK, min((block + 1) * BLOCK, len(scores))):
                if scores[index] >= least:
                    ids[count] = index
                    found[count] = scores[index]
                    count += 1
    return count


@_part
def _keep(ids: Any, found: Any, count: Any, border: Any, equal: Any) -> Any:
    """Keep what is better than the border, and the first so many that are equal to it. How many."""
    kept = 0
    for index in range(count):
        value = found[index]
        if value == border and equal > 0:
            equal -= 1
        elif value <= border:
            continue
        ids[kept] = ids[index]
        found[kept] = value
        kept += 1
    return kept


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
def _best_tokens(scores: Any, maxima: Any, count: Any, ids: Any, found: Any, values: Any, masses: Any) -> None:
    """The `count` best, equal ones by lowest id; ascending by id."""
    least = _good_enough(maxima, count, values, masses)
    many = _gather(scores, maxima, least, ids, found)
    for index in range(many):
        values[index] = found[index]
        masses[index] = 1
    border, equal = _border(values, masses, many, count)
    _keep(ids, found, many, border, equal)


@_part
def _weights_of(found: Any, count: Any, best: Any, temperature: Any, values: Any, masses: Any) -> Any:
    """Copies scores for `_border`, with their weights. The sum of those."""
    total = np.int64(0)
    for index in range(count):
        values[index] = found[index]
        masses[index] = _weight((found[index] - best) / temperature)
        total += masses[index]
    return total


@_part
def _mass(scores: Any, best: Any, temperature: Any) -> Any:
    """The sum of all weights."""
    total = np.int64(0)
    for index in range(len(scores)):
        total += _weight((scores[index] - best) / temperature)
    return total


@_small
def _share(top_p: Any, total: Any) -> Any:
    return min(np.int64(np.ceil(top_p * float(total))), total)


@_part
def _draw_of_all(scores: Any, maxima: Any, best: Any, first: Any, temperature: Any, least_gap: Any, key: Any) -> Any:
    """The token of the highest gap + noise. Starts from the best one, `first`: few others can beat its noise."""
    chosen, highest = first, _gumbel(_random(key, first))
    for block in range(len(maxima)):
        gap = (maxima[block] - best) / temperature
        if gap < least_gap or gap == -_INFINITY:
            continue
        least = _least_random(highest - gap)
        start, end = block * BLOCK, min((block + 1) * BLOCK, len(scores))
        lucky = 0
        for index in range(start, end):
            lucky += _random(key, index) >= least
        if lucky == 0:
            continue
        for index in range(start, end):
            random = _random(key, index)
            own = (scores[index] - best) / temperature
            if random >= least and own >= least_gap:
                total = own + _gumbel(random)
                if total > highest or (total == highest and index < chosen):
                    chosen, highest = index, total
    return chosen


@_part
def _draw(ids: Any, found: Any, count: Any, best: Any, temperature: Any, least_gap: Any, key: Any) -> Any:
    """The same among a few tokens, ascending by id; the best score is one of theirs."""
    chosen, highest = np.int64(-1), -_INFINITY
    for index in range(count):
        gap = (found[index] - best) / temperature
        if gap >= least_gap:
            total = gap + _gumbel(_random(key, ids[index]))
            if total > highest:
                chosen, highest = np.int64(ids[index]), total
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
def _sample_adjusted(
    scores: Any, maxima: Any, own: Any, key: Any, ids: Any, found: Any, values: Any, masses: Any
) -> Any:
    """A token from a row of adjusted scores, or NOTHING_LEFT."""
    best = _block_maxima(scores, maxima)
    first = _lowest_of_best(scores, maxima, best)
    if best == -_INFINITY:
        return NOTHING_LEFT
    temperature = own[_TEMPERATURE]
    if temperature == 0.0:
        return first
    top_k, top_p, least_gap = np.int64(own[_TOP_K]), own[_TOP_P], own[_SMALLEST_GAP]
    few = 0 < top_k < len(scores)
    if not few and top_p >= 1.0:
        return _draw_of_all(scores, maxima, best, first, temperature, least_gap, key)
    if few:
        _best_tokens(scores, maxima, top_k, ids, found, values, masses)
        count = top_k
        if top_p < 1.0:
            total = _weights_of(found, count, best, temperature, values, masses)
            border, equal = _border(values, masses, count, _share(top_p, total))
            count = _keep(ids, found, count, border, equal)
    else:
        wanted = _share(top_p, _mass(scores, best, temperature))
        blocks = 16
        while True:
            least = _good_enough(maxima, blocks, values, masses)
            count = _gather(scores, maxima, least, ids, found)
            if _weights_of(found, count, best, temperature, values, masses) >= wanted:
                break
            blocks *= 4
        border, equal = _border(values, masses, count, wanted)
        count = _keep(ids, found, count, border, equal)
    return _draw(ids, found, count, best, temperature, least_gap, key)


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
    ids: Any,
    found: Any,
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
        if own[_TEMPERATURE] == 0.0 and edges[row, 0] == edges[row, 3] and mask_of[row] < 0:
            tokens[row] = _best_of_row(logits[row])
        elif not _widen(logits[row], scores[part]):
            tokens[row] = NOT_FINITE
        else:
            if mask_of[row] >= 0:
                _mask(scores[part], masks[mask_of[row]])
            _adjust(scores[part], own, edges[row], edited, amounts)
            key = _mixed(keys[row] + offsets[row] * _GOLDEN)
            tokens[row] = _sample_adjusted(
                scores[part], maxima[part], own, key, ids[part], found[part], values[part], masses[part]
            )


@_whole
def explain_rows(
    logits: Any,
    rows: Any,
    named: Any,
    part: Any,
    scores: Any,
    maxima: Any,
    ids: Any,
    found: Any,
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
        if not _widen(logits[rows[index]], own):
            totals[index] = 0
            continue
        best = _block_maxima(own, maxima[part])
        totals[index] = _mass(own, best, 1.0)
        if alternatives:
            _best_tokens(own, maxima[part], alternatives, ids[part], found[part], values[part], masses[part])
        for rank in range(alternatives):  # sorted into their places; equal ones stay in the order of their ids
            token, value, place = ids[part, rank], found[part, rank], rank + 1
            while place > 1 and own[named[index, place - 1]] < value:
                named[index, place] = named[index, place - 1]
                place -= 1
            named[index, place] = token
        for place in range(alternatives + 1):
            gaps[index, place] = own[named[index, place]] - best


Room = tuple[
    NDArray[np.float64],
    NDArray[np.float64],
    NDArray[np.int32],
    NDArray[np.float64],
    NDArray[np.float64],
    NDArray[np.int64],
]


def new_room(parts: int, vocab_size: int) -> Room:
    """What both functions work in: `scores`, `maxima`, `ids`, `found`, `values`, `masses`."""
    shape = parts, vocab_size
    return (
        np.empty(shape),
        np.empty((parts, -(-vocab_size // BLOCK))),
        np.empty(shape, dtype=np.int32),
        np.empty(shape),
        np.empty(shape),
        np.empty(shape, dtype=np.int64),
    )
