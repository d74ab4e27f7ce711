"""The work of a round, drawn from its seed, and what the fake engine makes of it when nobody is disturbed.

Knows bodies of requests and the fake engine's tokens; submits nothing.
"""

import random
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from headrace.contract.generation import Sampling, TokenLogprobs
from headrace.contract.job import State
from workers.inference.fake_engine import logprobs_at, token_at
from workers.inference.messages import AddRequest

JOBS = 8
"""Of one wave."""

MOST_LOGPROBS = 5
LARGE, SEVERAL, CANCELLED = 0, 1, 2
"""Places in a wave of which it is known beforehand what stands there; the rest is drawn, and so are their details."""

WORDS = ("river", "mill", "wheel", "race", "stone", "water", "grain", "miller", "sluice", "weir", "flume", "sack")
SUCCESS = frozenset({State.SUCCEEDED})
MAY_CANCEL = SUCCESS | {State.CANCELLED}
CLASSES = ("interactive", "standard", "batch", "background")


class Mode(StrEnum):
    """What its customer does with a job."""

    STREAM = "stream"
    POLL = "poll"
    CANCEL = "cancel"


@dataclass(frozen=True, slots=True)
class Sizes:
    """Letters of a prompt and tokens of an answer; the large ones go to the blob store, from 250 ids on or, of an
    answer, with fewer and their log probabilities."""

    tokens: tuple[int, ...]
    large_prompt: int
    large_tokens: tuple[int, ...]


FAKE = Sizes((8, 24, 40, 64, 96), 260, (254, 270))
REAL = Sizes((12, 24, 40), 1800, (24, 40))


@dataclass(frozen=True, slots=True)
class Answer:
    """One choice as an undisturbed run gives it. `logprobs` is empty where none were asked for."""

    ids: tuple[int, ...]
    finish_reason: str
    logprobs: tuple[TokenLogprobs, ...] = ()


@dataclass(frozen=True, slots=True)
class Order:
    """One job to be. `cancel_at` is how many tokens its customer waits for; the `key` makes it safe to ask twice, and
    `twice` says that it is asked twice whatever happens. `may_end` are the states in which it may end."""

    number: int
    body: Mapping[str, Any]
    mode: Mode
    key: str
    twice: bool = False
    cancel_at: int = 0
    prompt_tokens: int = 0
    answers: tuple[Answer, ...] = ()
    may_end: frozenset[State] = SUCCESS


def wave(seed: int, number: int, model: str, *, jobs: int = JOBS, real: bool = False) -> tuple[Order, ...]:
    """The orders of one wave of a round. For the real engine nothing is known of their answers here."""
    dice = random.Random(f"{seed}/{number}")
    return tuple(_draw(dice, f"{seed}-{number}-{place}", place, model, real=real) for place in range(jobs))


def _draw(dice: random.Random, name: str, place: int, model: str, *, real: bool) -> Order:
    sizes, large = REAL if real else FAKE, place == LARGE or dice.random() < 0.1
    body: dict[str, Any] = {
        "model": model,
        "prompt": _prompt(dice, sizes.large_prompt if large else dice.randrange(8, 60)),
        "max_tokens": dice.choice(sizes.large_tokens if large else sizes.tokens),
        "seed": dice.randrange(2**40),
        "temperature": dice.choice((0.0, 0.7, 1.0)),
        "n": 1 if large else dice.choice((2, 3)) if place == SEVERAL else dice.choice((1, 1, 1, 1, 2)),
        "class": dice.choice(CLASSES),
        "metadata": {"order": name},
    }
    if dice.random() < 0.25 or (large and real):
        body["logprobs"] = MOST_LOGPROBS if large else dice.choice((0, 2, MOST_LOGPROBS))
    if dice.random() < 0.3:
        body |= {"frequency_penalty": 0.7, "presence_penalty": 0.3, "repetition_penalty": 1.1}
    if dice.random() < 0.3:
        body |= {"top_p": 0.9, "top_k": 40}
    if dice.random() < 0.2:
        body["deadline_seconds"] = dice.choice((25, 600))
    if not large and dice.random() < 0.35:
        body["stop"] = [dice.choice((" the", ",", ".", "and"))] if real else _stops(dice, body)
    mode = Mode.CANCEL if place == CANCELLED else dice.choices(list(Mode), (5, 4, 1))[0]
    return Order(
        number=place,
        body=body,
        mode=mode,
        key=f"order-{name}-{dice.randrange(2**60)}",
        twice=dice.random() < 0.15,
        cancel_at=dice.choice((0, 1, 12)) if mode is Mode.CANCEL else 0,
        may_end=MAY_CANCEL if mode is Mode.CANCEL else SUCCESS,
        prompt_tokens=len(body["prompt"].encode()),
        answers=() if real else undisturbed(body),
    )


def _prompt(dice: random.Random, letters: int) -> str:
    text = ""
    while len(text) < letters:
        text += dice.choice(WORDS) + " "
    return text[:letters].rstrip() or "mill"


def _stops(dice: random.Random, body: Mapping[str, Any]) -> list[str]:
    """Two letters that come up somewhere in the first choice."""
    text = bytes(_ids(body, 0)).decode()
    at = dice.randrange(max(1, len(text) - 1))
    return [text[at : at + 2]]


def undisturbed(body: Mapping[str, Any]) -> tuple[Answer, ...]:
    """Every choice by the fake engine's rules: a byte is a token, and a stop string ends a choice with its last one."""
    return tuple(_answer(body, choice) for choice in range(body["n"]))


def _answer(body: Mapping[str, Any], choice: int) -> Answer:
    ids, reason = _ids(body, choice), "length"
    text = bytes(ids).decode()
    ends = [at + len(stop) for stop in body.get("stop", ()) if (at := text.find(stop)) >= 0]
    if ends:
        ids, reason = ids[: min(ends)], "stop"
    wanted = body.get("logprobs")
    start = len(body["prompt"].encode())
    logprobs = () if wanted is None else tuple(logprobs_at(start + at, token, wanted) for at, token in enumerate(ids))
    return Answer(ids, reason, logprobs)


def _ids(body: Mapping[str, Any], choice: int) -> tuple[int, ...]:
    prompt_ids, sampling = tuple(body["prompt"].encode()), Sampling(seed=body["seed"])
    request = AddRequest("", prompt_ids, sampling, choice, body["max_tokens"])
    return tuple(token_at(request, offset) for offset in range(body["max_tokens"]))
