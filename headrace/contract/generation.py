"""What is to be generated: the frozen request of a job, and how ids are packed. Knows no text and no transport."""

import sys
from array import array
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Sampling:
    """Sampling parameters after every default is filled in; `seed` is always drawn by then.

    `temperature` 0 is greedy. `top_k` 0, `top_p` 1, `min_p` 0, penalties 0 and `repetition_penalty` 1 are off.
    """

    seed: int
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    repetition_penalty: float = 1.0


@dataclass(frozen=True, slots=True)
class FrozenRequest:
    """Everything an attempt needs, decided once at submit. Nothing in it is rendered or drawn again on a retry.

    `logprobs` and `prompt_logprobs` say how many alternatives are wanted for each token (0: the token's own alone;
    None: no log probabilities at all). `echo` puts the prompt in front of the answer. `max_tokens` may only be 0 where
    the prompt's log probabilities are wanted.
    """

    prompt_ids: tuple[int, ...]
    sampling: Sampling
    max_tokens: int
    stop: tuple[str, ...] = ()
    n: int = 1
    logprobs: int | None = None
    prompt_logprobs: int | None = None
    echo: bool = False


@dataclass(frozen=True, slots=True)
class TokenLogprobs:
    """How likely a token was under the model itself, before temperature and penalties: natural logarithms, rounded to
    float32 numbers by the engine and never below -9999.

    `top` are the likeliest tokens there as (id, logprob), most likely first, ties by lowest id.
    """

    logprob: float
    top: tuple[tuple[int, float], ...] = ()


PromptLogprobs = tuple[TokenLogprobs | None, ...]
"""One for each prompt token; None for the first, which nothing predicts."""


@dataclass(frozen=True, slots=True)
class Usage:
    """Token counts of a job; completion tokens are what was journaled, over all choices.

    `cached_tokens` of the prompt were in a prefix cache when the job was begun: 0 for one that was resumed.
    """

    prompt_tokens: int
    completion_tokens: int = 0
    cached_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Choice:
    """One finished choice as the result keeps it."""

    index: int
    token_ids: tuple[int, ...]
    finish_reason: str
    logprobs: tuple[TokenLogprobs, ...] = ()
    prompt_logprobs: PromptLogprobs = ()


def pack_ids(ids: Iterable[int]) -> bytes:
    """Token ids as unsigned 32-bit little-endian."""
    packed = array("I", ids)
    if sys.byteorder == "big":
        packed.byteswap()
    return packed.tobytes()


def unpack_ids(data: bytes) -> tuple[int, ...]:
    """Inverse of `pack_ids`; raises ValueError when the length is not a multiple of four."""
    packed = array("I")
    packed.frombytes(data)
    if sys.byteorder == "big":
        packed.byteswap()
    return tuple(packed)
