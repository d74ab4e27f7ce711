"""Tokens and log probabilities from rows of logits, compiled; knows arrays, no addresses and no requests.

`engine.sampler` and `engine.logprobs` say what is computed, in numpy; this computes the same bits from the same
operations, and looks at far fewer tokens.

No float is added to another in an order that could change: masses are whole numbers, all else works on single tokens.
"""

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from kernels.cpu.compiling import entry, merged
from kernels.cpu.sampling_blocks import (
    BLOCK,
    NOT_FINITE,
    best_of_row,
    find_maxima,
    largest,
    mass_of_row,
    place_of_equal,
    widen,
)
from kernels.cpu.sampling_borders import border_of_best, border_of_share
from kernels.cpu.sampling_draw import draw, noise_key
from kernels.cpu.sampling_edits import adjust, bar_others

PARAMETERS: Final = 7
"""Of a row: sharpness (0: greedy), top_k, top_p, smallest gap, repetition, frequency and presence penalty."""
NOTHING_LEFT: Final = -2
"""Instead of a token, where all are barred."""

_SHARPNESS, _TOP_K, _TOP_P, _SMALLEST_GAP, _REPETITION, _FREQUENCY, _PRESENCE = range(PARAMETERS)
_INFINITY: Final = float("inf")


@entry
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
            tokens[row] = best_of_row(logits[row])
        elif not widen(logits[row], scores[part], maxima[part]):
            tokens[row] = NOT_FINITE
        else:
            if not plain:
                if mask_of[row] >= 0:
                    bar_others(scores[part], masks[mask_of[row]])
                adjust(scores[part], own[_REPETITION], own[_FREQUENCY], own[_PRESENCE], edges[row], edited, amounts)
                find_maxima(scores[part], maxima[part])
            key = noise_key(keys[row], offsets[row])
            tokens[row] = _sample_adjusted(scores[part], maxima[part], own, key, values[part], masses[part])


@merged
def _sample_adjusted(scores: Any, maxima: Any, own: Any, key: Any, values: Any, masses: Any) -> Any:
    """A token from a row of adjusted scores, or NOTHING_LEFT."""
    best = largest(maxima)
    if best == -_INFINITY:
        return NOTHING_LEFT
    first = place_of_equal(scores, maxima, best, np.int64(1))
    sharpness, top_k = own[_SHARPNESS], np.int64(own[_TOP_K])
    if sharpness == 0.0:
        return first
    border, last_equal = -_INFINITY, len(scores)
    if own[_TOP_P] < 1.0:
        border, equal = border_of_share(scores, maxima, best, sharpness, top_k, own[_TOP_P], values, masses)
        last_equal = place_of_equal(scores, maxima, border, equal)
    elif 0 < top_k < len(scores):
        border, equal = border_of_best(scores, maxima, top_k, values, masses)
        last_equal = place_of_equal(scores, maxima, border, equal)
    return draw(scores, maxima, best, sharpness, own[_SMALLEST_GAP], key, border, last_equal, first)


@entry
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
        if not widen(logits[rows[index]], own, maxima[part]):
            totals[index] = 0
            continue
        best = largest(maxima[part])
        totals[index] = mass_of_row(own, maxima[part], best, 1.0)
        if alternatives:
            border, equal = border_of_best(own, maxima[part], alternatives, values[part], masses[part])
            _rank(own, maxima[part], border, equal, named[index])
        for place in range(alternatives + 1):
            gaps[index, place] = own[named[index, place]] - best


@merged
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


Room = tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]]


def new_room(parts: int, vocab_size: int) -> Room:
    """What both functions work in: `scores`, `maxima`, `values`, `masses`."""
    shape = parts, vocab_size
    blocks = parts, -(-vocab_size // BLOCK)
    return np.empty(shape), np.empty(blocks), np.empty(shape), np.empty(shape, dtype=np.int64)
