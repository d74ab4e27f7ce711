"""How one request samples, in ids and numbers, and what is refused; knows no logits."""

import math
from dataclasses import dataclass
from typing import Final

from engine.errors import EngineRequestError

_MAX_SEED: Final = 2**64
_MAX_CHOICE: Final = 2**32
_MAX_BIAS: Final = 100.0


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """`temperature` 0 is greedy. `top_k` 0, `top_p` 1, `min_p` 0, penalties 0 and `repetition_penalty` 1 are off.

    `max_tokens` counts every generated token, those before a resume too. `seed` and `choice` key the noise together
    with offset and token, so two requests with the same of both draw the same. `logit_bias` is added to logits before
    temperature, ids to values in [-100, 100]. `stop_token_ids` end a request besides the model's own end tokens, which
    `ignore_eos` turns off; the stop token itself is part of the output.
    """

    max_tokens: int = 16
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    repetition_penalty: float = 1.0
    logit_bias: tuple[tuple[int, float], ...] = ()
    seed: int = 0
    choice: int = 0
    min_tokens: int = 0
    ignore_eos: bool = False
    stop_token_ids: tuple[int, ...] = ()
    logprobs: int | None = None
    grammar: str | None = None


def check_params(params: SamplingParams, vocab_size: int) -> None:
    """Raises EngineRequestError (`invalid_request`) for the first value that cannot be used, naming it."""
    if params.logprobs is not None:
        raise EngineRequestError("logprobs are not supported yet; leave them out")
    if params.grammar is not None:
        raise EngineRequestError("grammars are not supported yet; leave the grammar out")
    _check_whole("max_tokens", params.max_tokens, 1)
    _check_whole("min_tokens", params.min_tokens, 0, params.max_tokens)
    _check_whole("top_k", params.top_k, 0)
    _check_whole("seed", params.seed, 0, _MAX_SEED - 1)
    _check_whole("choice", params.choice, 0, _MAX_CHOICE - 1)
    _check_real("temperature", params.temperature, 0.0, math.inf)
    _check_real("min_p", params.min_p, 0.0, 1.0)
    _check_real("frequency_penalty", params.frequency_penalty, -100.0, 100.0)
    _check_real("presence_penalty", params.presence_penalty, -100.0, 100.0)
    _check_positive("top_p", params.top_p, 1.0)
    _check_positive("repetition_penalty", params.repetition_penalty, 100.0)
    for token_id, bias in params.logit_bias:
        _check_whole("logit_bias id", token_id, 0, vocab_size - 1)
        _check_real("logit_bias value", bias, -_MAX_BIAS, _MAX_BIAS)
    for token_id in params.stop_token_ids:
        _check_whole("stop_token_ids", token_id, 0, vocab_size - 1)


def check_ids(what: str, token_ids: tuple[int, ...], vocab_size: int) -> None:
    """Raises EngineRequestError for the first id outside the vocabulary."""
    for position, token_id in enumerate(token_ids):
        if not isinstance(token_id, int) or not 0 <= token_id < vocab_size:
            raise EngineRequestError(f"{what}[{position}] is {token_id!r}; ids of this model go to {vocab_size - 1}")


def _check_whole(name: str, value: int, low: int, high: int | None = None) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < low or (high is not None and value > high):
        limits = f"from {low} up" if high is None else f"from {low} to {high}"
        raise EngineRequestError(f"{name} must be a whole number {limits}, not {value!r}")


def _check_real(name: str, value: float, low: float, high: float) -> None:
    """Not a number and infinity are refused too."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high or math.isinf(value):
        raise EngineRequestError(f"{name} must be a number from {low:g} to {high:g}, not {value!r}")


def _check_positive(name: str, value: float, high: float) -> None:
    _check_real(name, value, 0.0, high)
    if value == 0:
        raise EngineRequestError(f"{name} must be above 0")
