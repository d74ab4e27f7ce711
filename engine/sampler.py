"""Chooses the next token from one row of logits; knows one request at a time, so no neighbour can change it.

    logits -> penalties -> bias -> min_tokens -> temperature -> top_k, top_p, min_p -> argmax of score + Gumbel noise

The largest of log p + Gumbel noise is a draw from p. Ties go to the lowest id throughout.
"""

import math

import numpy as np
from numpy.typing import NDArray

from engine.noise import gumbel
from engine.request import Request
from engine.sampling_params import SamplingParams

Scores = NDArray[np.float64]


def sample(logits: NDArray[np.float32], request: Request) -> int:
    """The token at offset len(request.output_ids).  logits [vocab], all finite"""
    params = request.params
    if params.temperature == 0 and not _adjusts(request):
        return int(logits.argmax())  # numpy promises the first of equals
    scores = logits.astype(np.float64)
    _penalise(scores, request)
    for token_id, bias in params.logit_bias:
        scores[token_id] += bias
    if len(request.output_ids) < params.min_tokens:
        scores[list(request.ends)] = -math.inf
    if params.temperature == 0:
        return int(scores.argmax())
    scores -= scores.max()
    scores /= params.temperature
    kept = restrict(scores, params)
    noise = gumbel(params.seed, params.choice, len(request.output_ids), kept)
    return int(kept[(scores[kept] + noise).argmax()])


def _adjusts(request: Request) -> bool:
    """Whether anything but temperature changes the logits."""
    params = request.params
    return bool(
        params.logit_bias
        or params.frequency_penalty
        or params.presence_penalty
        or params.repetition_penalty != 1
        or len(request.output_ids) < params.min_tokens
    )


def _penalise(scores: Scores, request: Request) -> None:
    """In place. Repetition looks at prompt and output (Keskar et al., 2019); the other two at the output (OpenAI)."""
    params = request.params
    if params.repetition_penalty != 1:
        seen = np.unique(np.array((*request.prompt_ids, *request.output_ids), dtype=np.int64))
        found = scores[seen]
        scores[seen] = np.where(found > 0, found / params.repetition_penalty, found * params.repetition_penalty)
    if request.output_ids and (params.frequency_penalty or params.presence_penalty):
        used, counts = np.unique(np.array(request.output_ids, dtype=np.int64), return_counts=True)
        scores[used] -= params.frequency_penalty * counts + params.presence_penalty


def restrict(scores: Scores, params: SamplingParams) -> NDArray[np.int64]:
    """The ids that top_k, then top_p, then min_p leave, in ascending order. scores = log p + constant, largest 0.

    Each of the three says how many of the best tokens stay, so one sort of the values is enough.
    """
    if not (params.top_k or params.top_p < 1 or params.min_p):
        return np.arange(len(scores))
    best_first = np.sort(scores)[::-1]
    count = min(params.top_k or len(scores), len(scores))
    if params.top_p < 1:
        mass = np.exp(best_first[:count]).cumsum()
        count = min(count, int(mass.searchsorted(params.top_p * mass[-1])) + 1)
    if params.min_p:
        count = min(count, int((best_first[:count] >= math.log(params.min_p)).sum()))
    lowest = best_first[count - 1]
    above = np.flatnonzero(scores > lowest)
    equal = np.flatnonzero(scores == lowest)[: count - len(above)]
    return np.sort(np.concatenate((above, equal)))
