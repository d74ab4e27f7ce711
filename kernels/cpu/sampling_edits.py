"""What a request changes of its row of scores before anything is chosen: bias, penalties, barred tokens."""

from typing import Any, Final

import numpy as np

from kernels.cpu.compiling import merged

_INFINITY: Final = float("inf")


@merged
def adjust(scores: Any, repetition: Any, frequency: Any, presence: Any, edges: Any, ids: Any, amounts: Any) -> None:
    """Bias, penalties and bars, in place.

    edges  | biases ... | seen tokens, with their count in the output ... | barred ... |
    """
    for index in range(edges[0], edges[1]):
        scores[ids[index]] += amounts[index]
    for index in range(edges[1], edges[2]):
        token, times = ids[index], amounts[index]
        score = scores[token]
        if repetition != 1.0:
            score = score / repetition if score > 0.0 else score * repetition
        if times > 0.0:
            score -= frequency * times + presence
        scores[token] = score
    for index in range(edges[2], edges[3]):
        scores[ids[index]] = -_INFINITY


@merged
def bar_others(scores: Any, mask: Any) -> None:
    """Leaves no score to tokens whose bit of the mask is 0."""
    for index in range(len(scores)):
        if not (mask[index >> 5] >> np.uint32(index & 31)) & np.uint32(1):
            scores[index] = -_INFINITY
