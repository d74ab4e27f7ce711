"""A schedule drawn from a seed: requests, what happens to each, and two engines for them. Knows no engine that runs."""

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from engine import SamplingParams

MAX_PROMPT, MAX_BUDGET = 300, 256
PAGE_SIZES = (16, 32)
SMALL_PAGES = (4, 8, 16)
"""Finer to share and to run out of; for backends that take them."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Case:
    """One request and what happens to it. `stop_at`, `abort_at`: lengths of output at which it does, None: never."""

    id: str
    prompt: tuple[int, ...]
    params: SamplingParams
    priority: int
    arrives: int
    stop_at: int | None
    moves: bool
    abort_at: int | None


@dataclass(frozen=True, slots=True)
class Knobs:
    """One engine of a schedule."""

    page_size: int
    num_pages: int
    max_batched_tokens: int
    max_num_seqs: int
    prefix_cache: bool


@dataclass(frozen=True, slots=True)
class Plan:
    cases: tuple[Case, ...]
    engines: tuple[Knobs, Knobs]


@dataclass(frozen=True, slots=True)
class Kind:
    """How requests of a schedule are alike. `pool`: the pages of an engine, 0 for what all prompts fill, 1 for what
    they and all outputs could."""

    requests: tuple[int, int]
    prompts: tuple[int, int]
    outputs: tuple[int, int]
    pool: tuple[float, float]
    seqs: tuple[int, int]


KINDS = (
    # Prefilled in chunks beside decodes.
    Kind(requests=(2, 6), prompts=(1, MAX_PROMPT), outputs=(1, 24), pool=(-0.8, 0.2), seqs=(2, 8)),
    # A batch of many, which outgrow the pool together.
    Kind(requests=(18, 26), prompts=(1, 40), outputs=(6, 20), pool=(-0.2, 0.1), seqs=(18, 32)),
    # A few that give way to each other again and again.
    Kind(requests=(4, 7), prompts=(1, 36), outputs=(16, 40), pool=(-0.8, 0.0), seqs=(4, 8)),
)


def draw(seed: int, vocab_size: int, page_sizes: Sequence[int] = PAGE_SIZES) -> Plan:
    """A function of its arguments alone."""
    dice = random.Random(seed)
    kind = dice.choice(KINDS)
    beginnings = _beginnings(dice, vocab_size, kind.prompts[1])
    cases = tuple(
        _draw_case(dice, index, vocab_size, kind, beginnings) for index in range(dice.randint(*kind.requests))
    )
    return Plan(cases, (_draw_knobs(dice, kind, cases, page_sizes), _draw_knobs(dice, kind, cases, page_sizes)))


def _beginnings(dice: random.Random, vocab_size: int, length: int) -> tuple[tuple[int, ...], ...]:
    """Two that differ in their first page and in no other: what is kept of one must not be taken for the other's."""
    one = _ids(dice, vocab_size, length)
    page = 16 if length > 32 else 4
    return one, _ids(dice, vocab_size, page) + one[page:]


def _ids(dice: random.Random, vocab_size: int, count: int) -> tuple[int, ...]:
    return tuple(dice.randrange(vocab_size) for _ in range(count))


def _draw_case(
    dice: random.Random, index: int, vocab_size: int, kind: Kind, beginnings: Sequence[tuple[int, ...]]
) -> Case:
    length = _log_uniform(dice, *kind.prompts)
    # Most begin like others do, and some of those are nothing but a beginning.
    shared = _sometimes(dice, 0.7, dice.choice((length, dice.randint(0, length))), 0)
    prompt = dice.choice(beginnings)[:shared] + _ids(dice, vocab_size, length - shared)
    max_tokens = dice.randint(*kind.outputs)
    params = SamplingParams(
        max_tokens=max_tokens,
        temperature=0.0,
        ignore_eos=dice.random() < 0.8,
        min_tokens=_sometimes(dice, 0.3, dice.randint(0, max_tokens), 0),
        logit_bias=_sometimes(dice, 0.2, {dice.randrange(vocab_size): dice.uniform(-5, 5)}, {}),
        stop_token_ids=_sometimes(dice, 0.1, tuple(dice.sample(range(vocab_size), 5)), ()),
    )
    if dice.random() < 0.5:
        params = _sampled(dice, params, vocab_size)
    params = _explained(dice, params)
    return Case(
        id=f"request-{index}",
        prompt=prompt,
        params=params,
        priority=_sometimes(dice, 0.2, 1, 0),
        arrives=_sometimes(dice, 0.2, dice.randint(0, 40), 0),
        stop_at=_sometimes(dice, 0.6, dice.randrange(max_tokens), None),
        moves=dice.random() < 0.5,
        abort_at=_sometimes(dice, 0.15, dice.randrange(max_tokens), None),
    )


def _explained(dice: random.Random, params: SamplingParams) -> SamplingParams:
    """Most want log probabilities, which show a last bit that tokens hide; a few want nothing but the prompt's."""
    params = replace(
        params,
        logprobs=_sometimes(dice, 0.7, dice.randint(0, 20), None),
        prompt_logprobs=_sometimes(dice, 0.2, dice.randint(0, 20), None),
    )
    alone = params.prompt_logprobs is not None and dice.random() < 0.2
    return replace(params, max_tokens=0, min_tokens=0) if alone else params


def _sampled(dice: random.Random, params: SamplingParams, vocab_size: int) -> SamplingParams:
    return replace(
        params,
        temperature=dice.uniform(0.3, 1.5),
        top_k=_sometimes(dice, 0.3, dice.randint(1, vocab_size), 0),
        top_p=_sometimes(dice, 0.3, dice.uniform(0.3, 0.99), 1.0),
        min_p=_sometimes(dice, 0.2, dice.uniform(0.001, 0.2), 0.0),
        frequency_penalty=_sometimes(dice, 0.2, dice.uniform(-1, 2), 0.0),
        presence_penalty=_sometimes(dice, 0.2, dice.uniform(-1, 2), 0.0),
        repetition_penalty=_sometimes(dice, 0.2, dice.uniform(0.8, 1.5), 1.0),
        seed=dice.getrandbits(64),
        choice=dice.randint(0, 3),
    )


def _draw_knobs(dice: random.Random, kind: Kind, cases: Sequence[Case], page_sizes: Sequence[int]) -> Knobs:
    """A pool that holds the longest request, and of all together a part: so they have to give way to each other."""
    page_size, seqs = dice.choice(page_sizes), dice.randint(*kind.seqs)
    begun = [-(-(len(case.prompt) + 1) // page_size) for case in cases]
    ended = [-(-(len(case.prompt) + case.params.max_tokens) // page_size) for case in cases]
    wanted = sum(begun) + dice.uniform(*kind.pool) * (sum(ended) - sum(begun))
    return Knobs(
        page_size=page_size,
        num_pages=max(*ended, round(wanted)),
        max_batched_tokens=dice.choice((dice.randint(1, seqs), dice.randint(seqs, MAX_BUDGET), MAX_BUDGET)),
        max_num_seqs=seqs,
        prefix_cache=dice.random() < 0.8,
    )


def _log_uniform(dice: random.Random, low: int, high: int) -> int:
    """Short ones as often as long ones, from `low` to `high`."""
    return min(high, int(low * ((high + 1) / low) ** dice.random()))


def _sometimes(dice: random.Random, chance: float, value: T, other: T) -> T:
    return value if dice.random() < chance else other
