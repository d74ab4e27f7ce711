"""How likely the model holds a token to be, from one row of logits; knows neither sampling nor neighbours.

Like every sum of the exact engine, the one over the vocabulary is a sum of whole numbers: weights relative to the most
probable token on a grid of 2^-40. So it has no order, and the error of the logarithm stays below 5e-8 for a vocabulary
of 2^16. Results are rounded to float32, the one precision in which they then travel and are kept.
"""

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from engine.noise import Floats, Ids

MOST_ALTERNATIVES: Final = 20
# What a token has at least, so that no row of logits leads to an infinity, which JSON cannot say.
LOWEST: Final = -9999.0
_GRID: Final = 1 << 40


@dataclass(frozen=True, slots=True)
class TokenLogprobs:
    """Natural logarithms, float32 numbers. `top`: (id, logprob) of the likeliest tokens, equal ones by lowest id."""

    logprob: float
    top: tuple[tuple[int, float], ...]


def explain(logits: NDArray[np.float32], token_id: int, alternatives: int) -> TokenLogprobs:
    """How likely `token_id` was under a row of finite logits [vocab], and so many tokens that were likeliest there.

    logprob(t) = logit(t) - max - log(sum over u of exp(logit(u) - max))
    """
    scores = logits.astype(np.float64)
    top = best(scores, min(alternatives, len(scores))) if alternatives else ()
    scores -= scores.max()
    weights = np.exp(scores)
    weights *= _GRID
    divisor = math.log(int(np.rint(weights, out=weights).astype(np.int64).sum()) / _GRID)
    named = ((int(each), _rounded(scores[each] - divisor)) for each in top)
    return TokenLogprobs(_rounded(scores[token_id] - divisor), tuple(named))


def best(scores: Floats, count: int) -> Ids:
    """The `count` highest scores, best first, equal ones by id."""
    threshold = np.partition(scores, len(scores) - count)[len(scores) - count]
    ids = np.flatnonzero(scores >= threshold)
    return ids[np.argsort(-scores[ids], kind="stable")][:count]


def _rounded(value: float) -> float:
    return float(np.float32(max(value, LOWEST)))
