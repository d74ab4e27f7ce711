"""How likely the model holds a token to be, from rows of logits; knows neither sampling nor neighbours.

The sum over the vocabulary is one of whole numbers: weights relative to the most probable token on a grid of 2^-40. So
it has no order, and the error of the logarithm stays below 5e-8 for a vocabulary
of 2^16. Results are rounded to float32, the one precision in which they then travel and are kept.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from engine.elementary import GRID, Counts, Floats, log, weights

MOST_ALTERNATIVES: Final = 20
# What a token has at least, so that no row of logits leads to an infinity, which JSON cannot say.
LOWEST: Final = -9999.0


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
    top = best(scores, min(alternatives, len(scores))) if alternatives else np.empty(0, dtype=np.int64)
    gaps = scores - scores.max()
    named = np.concatenate(([token_id], top)).astype(np.int64)
    return logprob_entries(weights(gaps).sum(keepdims=True), gaps[None, named], named[None], [alternatives])[0]


def logprob_entries(
    masses: Counts, gaps: Floats, token_ids: Counts, alternatives: Sequence[int]
) -> list[TokenLogprobs]:
    """One entry for each row, from the sum of its weights [rows] and the tokens to name, the one in question first
    [rows, 1 + tokens], with the distances of their logits to the row's largest. `alternatives`: how many to keep."""
    divisors = log(masses.astype(np.float64) / GRID)
    values = np.maximum(gaps - divisors[:, None], LOWEST).astype(np.float32).tolist()
    rows: Iterable[tuple[list[int], list[float], int]] = zip(token_ids.tolist(), values, alternatives, strict=True)
    return [
        TokenLogprobs(own[0], tuple(zip(ids[1 : count + 1], own[1 : count + 1], strict=True)))
        for ids, own, count in rows
    ]


def best(scores: Floats, count: int) -> Counts:
    """The `count` highest scores, best first, equal ones by id."""
    threshold = np.partition(scores, len(scores) - count)[len(scores) - count]
    ids = np.flatnonzero(scores >= threshold)
    return ids[np.argsort(-scores[ids], kind="stable")][:count]
