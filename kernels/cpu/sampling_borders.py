"""The score at which top-k and top-p end, and how many tokens of that score still belong; knows no noise.

No float is added to another: masses are whole numbers, so their sums have no order.
"""

from typing import Any, Final

import numpy as np

from kernels.cpu.compiling import compiled, inlined, merged
from kernels.cpu.sampling_blocks import gather, mass_of_row
from kernels.cpu.sampling_elementary import weight

_INFINITY: Final = float("inf")
_FIRST_BLOCKS: Final = 16
_MANY: Final = 512
_RANGES: Final = 2048
_RANGES_PER_UNIT: Final = 64.0


@compiled
def border_of_best(scores: Any, maxima: Any, count: Any, values: Any, masses: Any) -> Any:
    """The last of the `count` best scores, and how many equal ones are among them."""
    many = gather(scores, maxima, _good_enough(maxima, count, values, masses), values)
    for index in range(many):
        masses[index] = 1
    return _border(values, masses, many, count)


@merged
def border_of_share(
    scores: Any, maxima: Any, best: Any, sharpness: Any, top_k: Any, top_p: Any, values: Any, masses: Any
) -> Any:
    """The last of the best scores whose weights reach top_p of all, and how many equal ones they need.

    All that are left of top-k, where there is one.
    """
    if 0 < top_k < len(scores):
        last = border_of_best(scores, maxima, top_k, values, masses)[0]
        count = gather(scores, maxima, last, values)
        kept = 0
        for index in range(count):
            values[kept] = values[index]
            kept += values[index] > last
        for index in range(kept, top_k):
            values[index] = last
        wanted = _share(top_p, weigh(values, masses, top_k, best, sharpness))
        return _border(values, masses, top_k, wanted)
    wanted = _share(top_p, mass_of_row(scores, maxima, best, sharpness))
    blocks = np.int64(_FIRST_BLOCKS)  # or all below it is compiled again for this one number
    while True:
        count = gather(scores, maxima, _good_enough(maxima, blocks, values, masses), values)
        if weigh(values, masses, count, best, sharpness) >= wanted:
            return _border(values, masses, count, wanted)
        blocks *= _FIRST_BLOCKS


@compiled
def _good_enough(maxima: Any, count: Any, values: Any, masses: Any) -> Any:
    """A score that at least `count` tokens have, by the blocks' best alone."""
    if count > len(maxima):
        return -_INFINITY
    for block in range(len(maxima)):
        values[block] = maxima[block]
        masses[block] = 1
    return _border(values, masses, len(maxima), count)[0]


@merged
def weigh(values: Any, masses: Any, count: Any, best: Any, sharpness: Any) -> Any:
    """The weights of some scores, and their sum."""
    total = np.int64(0)
    for index in range(count):
        masses[index] = weight((values[index] - best) * sharpness)
        total += masses[index]
    return total


@merged
def _share(top_p: Any, total: Any) -> Any:
    return min(np.int64(np.ceil(top_p * float(total))), total)


@compiled
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


@merged
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


@inlined
def _range_of(value: Any, best: Any) -> Any:
    """From 0 for the best value to the last range, which takes everything far below."""
    below = (best - value) * _RANGES_PER_UNIT
    return np.int64(below) if below < _RANGES else _RANGES - 1
