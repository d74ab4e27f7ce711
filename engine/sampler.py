"""Chooses one token from one row of logits; knows parameters, counts and noise, no neighbours and no tensors.

Every row is worked on by itself and in float64, so what a request draws cannot depend on the batch it shared. The order
of the steps: bias and penalties, minimum length, temperature, top-k, top-p, min-p, noise.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from engine.logprobs import best
from engine.noise import Floats, Ids, gumbel
from engine.request import Request, SamplingParams

# So many most probable tokens hold the mass that top-p asks for, nearly always; sorting all would cost 20 times more.
_LIKELY = 1024


def sample(logits: NDArray[np.float32], request: Request) -> int:
    """The next token of a request from its row of logits [vocab]. Raises ValueError when nothing can be chosen."""
    params, scores = request.params, logits.astype(np.float64)
    _adjust(scores, params, request)
    if params.temperature == 0:
        return int(scores.argmax())  # the lowest id among equals
    scores /= params.temperature
    ids = _candidates(scores, params)
    drawn = scores[ids] + gumbel(params.seed, params.choice, request.output_length, ids)
    chosen = int(ids[drawn.argmax()])
    if not np.isfinite(scores[chosen]):
        raise ValueError("no token has a finite score")
    return chosen


def _adjust(scores: Floats, params: SamplingParams, request: Request) -> None:
    """Bias, penalties and minimum length, in place."""
    for token_id, bias in params.logit_bias.items():
        scores[token_id] += bias
    if params.repetition_penalty != 1.0:
        seen = _distinct(request.ids)[0]
        found = scores[seen]
        scores[seen] = np.where(found > 0, found / params.repetition_penalty, found * params.repetition_penalty)
    if params.frequency_penalty or params.presence_penalty:
        used, counts = _distinct(request.output())
        scores[used] -= params.frequency_penalty * counts + params.presence_penalty
    if request.output_length < params.min_tokens:
        scores[list(request.end_ids)] = -np.inf


def _distinct(ids: Sequence[int]) -> tuple[Ids, Ids]:
    found, counts = np.unique(np.asarray(ids, dtype=np.int64), return_counts=True)
    return found, counts.astype(np.int64)


def _candidates(scores: Floats, params: SamplingParams) -> Ids:
    """Ids that may be drawn, ascending. Equal scores at the border of top-k or top-p: the lower id stays."""
    ids: Ids = np.arange(len(scores), dtype=np.int64)
    if 0 < params.top_k < len(scores):
        ids = best(scores, params.top_k)
    if params.top_p < 1.0 or params.min_p > 0.0:
        weights = np.exp(scores - scores.max())  # relative to the most probable token
        if params.top_p < 1.0:
            ids = _nucleus(scores, weights, ids, params.top_p)
        ids = ids[weights[ids] >= params.min_p]
    return np.sort(ids)


def _nucleus(scores: Floats, weights: Floats, ids: Ids, top_p: float) -> Ids:
    """The shortest run of most probable ids whose mass reaches `top_p` of the mass of `ids`."""
    wanted = top_p * weights[ids].sum()
    if len(ids) == len(scores):
        likely = best(scores, min(_LIKELY, len(scores)))
        mass = weights[likely].cumsum()
        if mass[-1] >= wanted:
            return likely[: int(mass.searchsorted(wanted)) + 1]
    ids = ids[np.argsort(-scores[ids], kind="stable")]
    return ids[: int(weights[ids].cumsum().searchsorted(wanted)) + 1]
