"""Chooses one token from one row of logits; knows parameters, counts and noise, no neighbours and no tensors.

Every row is worked on by itself and in float64, so what a request draws cannot depend on the batch it shared. In order:

    mask        tokens that a grammar does not allow have no score
    adjust      bias, repetition, frequency and presence; bad words and too early ends have no score
    greedy      temperature 0: the best score, the lowest id among equals
    gap         (score - best score) * (1 / temperature), at most 0
    top-k       the k best scores
    top-p       the fewest of those, best first, whose weights exp(gap) reach their part of all of them
    min-p       gaps of at least log(min_p)
    draw        the highest gap + noise

Equal scores at a border of top-k or top-p: the lower id stays. This is the plain form; `engine.compiled_sampler` is the
fast one, and chooses the same tokens.
"""

import importlib.util
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Final, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from engine.cpu_backend.compiled_code import keep_compiled_code
from engine.elementary import Counts, Floats, log, weights
from engine.logprobs import TokenLogprobs, best, explain
from engine.noise import gumbel
from engine.outcome import RequestFailure
from engine.request import Request, SamplingParams

Rows: TypeAlias = NDArray[np.float32]
Masks: TypeAlias = Mapping[str, NDArray[np.uint32]]
"""By request id, of those that may not take any token: bit t % 32 of word t // 32 allows token t.  # [vocab / 32]"""

_FEW: Final = 1024
_SHARPEST: Final = 1e300

NO_MASKS: Final[Masks] = MappingProxyType({})
NOT_FINITE: Final = RequestFailure(
    "engine_error",
    "The model's logits for this request are not finite numbers. Asking again will not help; if other prompts fail, "
    "too, fetch the model's file anew.",
)
NOTHING_LEFT: Final = RequestFailure(
    "invalid_request",
    "No token is left to choose from: bad_words, min_tokens and the token mask together bar all of them; loosen one.",
)


def gone_wrong(error: Exception) -> RequestFailure:
    """A fault of ours in the sampling of one request."""
    return RequestFailure("engine_error", f"Sampling failed: {error!r}.")


@dataclass(slots=True)
class Sampled:
    """By request id: a token, or why there is none; log probabilities of those tokens whose requests asked."""

    tokens: dict[str, int] = field(default_factory=dict)
    failures: dict[str, RequestFailure] = field(default_factory=dict)
    logprobs: dict[str, tuple[TokenLogprobs, ...]] = field(default_factory=dict)


class Sampler(Protocol):
    """Works on rows of logits [rows, vocab], which it leaves as they are."""

    def sample(self, logits: Rows, requests: Sequence[Request], masks: Masks = NO_MASKS) -> Sampled:
        """The next token of each row's request. A row that goes wrong fails its own request alone."""
        ...

    def explain(self, logits: Rows, token_ids: Sequence[int], alternatives: int) -> list[TokenLogprobs] | None:
        """Each row's token explained, or None when one of the rows is not finite."""
        ...


def host_sampler(vocab_size: int, threads: int, cache: Path | None = None) -> Sampler:
    """The fast sampler where its compiler is installed, else the plain one: the tokens are the same. What it compiles
    is kept in `cache`; None: where this process keeps compiled code already."""
    if importlib.util.find_spec("numba") is None:
        return PlainSampler()
    if cache is not None:
        keep_compiled_code(cache)
    from engine.compiled_sampler import CompiledSampler  # numba takes a second to import

    return CompiledSampler(vocab_size, threads)


class PlainSampler:
    """Row after row in numpy."""

    def sample(self, logits: Rows, requests: Sequence[Request], masks: Masks = NO_MASKS) -> Sampled:
        sampled = Sampled()
        for row, request in zip(logits, requests, strict=True):
            try:
                outcome = choose(row, request, masks.get(request.id))
            except Exception as error:  # noqa: BLE001 - ends as this request's failure; its neighbours' rows are their own
                outcome = gone_wrong(error)
            if isinstance(outcome, RequestFailure):
                sampled.failures[request.id] = outcome
                continue
            sampled.tokens[request.id] = outcome
            if request.params.logprobs is not None:
                sampled.logprobs[request.id] = (explain(row, outcome, request.params.logprobs),)
        return sampled

    def explain(self, logits: Rows, token_ids: Sequence[int], alternatives: int) -> list[TokenLogprobs] | None:
        if not np.isfinite(logits).all():
            return None
        return [explain(row, token_id, alternatives) for row, token_id in zip(logits, token_ids, strict=True)]


def choose(
    logits: NDArray[np.float32], request: Request, mask: NDArray[np.uint32] | None = None
) -> int | RequestFailure:
    """The next token of a request from its row of logits [vocab], or why it has none."""
    if not np.isfinite(logits).all():
        return NOT_FINITE
    params, scores = request.params, logits.astype(np.float64)
    if mask is not None:
        scores[~np.unpackbits(mask.view(np.uint8), bitorder="little")[: len(scores)].astype(bool)] = -np.inf
    _adjust(scores, params, request)
    favourite = int(scores.argmax())  # the lowest id among equals
    if scores[favourite] == -np.inf:
        return NOTHING_LEFT
    if params.temperature == 0:
        return favourite
    with np.errstate(over="ignore"):  # the lowest temperatures push all others out of reach
        gaps = (scores - scores[favourite]) * sharpness(params.temperature)
    ids = _candidates(scores, gaps, params)
    totals = gaps[ids] + gumbel(params.seed, params.choice, request.output_length, ids)
    return int(ids[totals.argmax()])


def _adjust(scores: Floats, params: SamplingParams, request: Request) -> None:
    """Bias, penalties and what is barred, in place."""
    for token_id, bias in params.logit_bias.items():
        scores[token_id] += bias
    if params.repetition_penalty != 1.0:
        seen = np.unique(np.array(request.ids))
        found = scores[seen]
        scores[seen] = np.where(found > 0, found / params.repetition_penalty, found * params.repetition_penalty)
    if (params.frequency_penalty or params.presence_penalty) and request.output_length:
        used, counts = np.unique(np.array(request.output()), return_counts=True)
        scores[used] -= params.frequency_penalty * counts + params.presence_penalty
    for word in params.bad_words:
        if request.ids[len(request.ids) - len(word) + 1 :] == [*word[:-1]]:
            scores[word[-1]] = -np.inf
    if request.output_length < params.min_tokens:
        scores[[token_id for token_id in request.end_ids if token_id < len(scores)]] = -np.inf


def sharpness(temperature: float) -> float:
    """What gaps are multiplied by; 0 for greedy. Bounded, so that the best score's gap of 0 stays 0."""
    return min(1.0 / temperature, _SHARPEST) if temperature else 0.0


def smallest_gap(min_p: float) -> float:
    """What min-p asks of a gap."""
    return float(log(np.array(min_p))) if min_p > 0.0 else -math.inf


def _candidates(scores: Floats, gaps: Floats, params: SamplingParams) -> Counts:
    """Ids that may be drawn, ascending."""
    ids: Counts = np.arange(len(scores))
    if 0 < params.top_k < len(scores):
        ids = best(scores, params.top_k)
    if params.top_p < 1.0:
        ids = _nucleus(scores, gaps, ids, params.top_p)
    return np.sort(ids[gaps[ids] >= smallest_gap(params.min_p)])


def _nucleus(scores: Floats, gaps: Floats, ids: Counts, top_p: float) -> Counts:
    """The shortest run of the best of `ids` whose weights reach their part of all. The first few nearly always do."""
    total = int(weights(gaps[ids]).sum())
    wanted = min(math.ceil(top_p * float(total)), total)
    for count in (min(_FEW, len(ids)), len(ids)):
        ranked = ids[best(scores[ids], count)]
        mass = weights(gaps[ranked]).cumsum()
        if mass[-1] >= wanted:
            break
    return ranked[: int(mass.searchsorted(wanted)) + 1]
