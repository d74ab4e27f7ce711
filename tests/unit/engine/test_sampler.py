"""One row of logits, one token: every step of both samplers against a naive formula, and the draw against its law."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from engine.compiled_sampler import CompiledSampler
from engine.elementary import log
from engine.noise import gumbel
from engine.request import Request, SamplingParams
from engine.sampler import NOT_FINITE, NOTHING_LEFT, PlainSampler, Sampler

Row = NDArray[np.float32]
GREEDY = SamplingParams(max_tokens=64, temperature=0.0)
DRAWN = SamplingParams(max_tokens=64)
VOCAB = 12
ROADS = ("plain", "compiled")


def sampler_of(road: str, vocab_size: int) -> Sampler:
    return PlainSampler() if road == "plain" else CompiledSampler(vocab_size, threads=1)


@pytest.fixture(params=ROADS)
def road(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def request(
    params: SamplingParams, prompt: Sequence[int] = (0,), output: Sequence[int] = (), ends: Sequence[int] = ()
) -> Request:
    return Request("r", params, [*prompt, *output], len(prompt), 0, 0, frozenset(ends))


def row(*values: float) -> Row:
    return np.array(values, dtype=np.float32)


def outcome(road: str, logits: Row, asked: Request, mask: NDArray[np.uint32] | None = None) -> object:
    """A token or a failure."""
    masks = {} if mask is None else {asked.id: mask}
    sampled = sampler_of(road, len(logits)).sample(logits[None], [asked], masks)
    return sampled.failures.get(asked.id, sampled.tokens.get(asked.id))


def naive(logits: Row, asked: Request, allowed: Sequence[int] | None = None) -> int | None:
    """The same steps by dictionaries and loops; None when nothing is left."""
    params, output = asked.params, asked.ids[asked.prompt_length :]
    scores = {token: float(value) for token, value in enumerate(logits)}
    for token in scores:
        if allowed is not None and token not in allowed:
            scores[token] = -math.inf
    for token, bias in params.logit_bias.items():
        scores[token] += bias
    for token in set(asked.ids):
        factor = params.repetition_penalty
        scores[token] = scores[token] / factor if scores[token] > 0 else scores[token] * factor
    for token, count in Counter(output).items():
        scores[token] -= params.frequency_penalty * count + params.presence_penalty
    text = "".join(f"<{token}>" for token in asked.ids)
    for word in params.bad_words:
        if text.endswith("".join(f"<{token}>" for token in word[:-1])):
            scores[word[-1]] = -math.inf
    if len(output) < params.min_tokens:
        for token in asked.end_ids:
            scores[token] = -math.inf
    order = sorted(scores, key=lambda token: (-scores[token], token))
    best = scores[order[0]]
    if best == -math.inf:
        return None
    if params.temperature == 0:
        return order[0]
    gaps = {token: (score - best) / params.temperature for token, score in scores.items()}
    if params.top_k:
        order = order[: params.top_k]
    if params.top_p < 1:
        total, mass, kept = math.fsum(math.exp(gaps[token]) for token in order), 0.0, []
        for token in order:
            kept.append(token)
            mass += math.exp(gaps[token])
            if mass >= params.top_p * total:
                break
        order = kept
    order = [token for token in order if math.exp(gaps[token]) >= params.min_p * (1 - 1e-12)]
    noise = gumbel(params.seed, params.choice, len(output), np.arange(len(logits)))
    return max(order, key=lambda token: (gaps[token] + noise[token], -token))


tokens = st.integers(0, VOCAB - 1)
logit_rows = st.lists(st.integers(-40, 40), min_size=VOCAB, max_size=VOCAB).map(lambda row: [x / 4 for x in row])
masks = st.none() | st.lists(tokens, max_size=VOCAB)
words = st.lists(st.lists(tokens, min_size=1, max_size=4).map(tuple), max_size=4).map(tuple)
params = st.builds(
    SamplingParams,
    max_tokens=st.just(64),
    temperature=st.sampled_from([0.0, 0.4, 1.0, 1.7]),
    top_k=st.integers(0, VOCAB + 1),
    top_p=st.sampled_from([1.0, 0.95, 0.5, 0.05]),
    min_p=st.sampled_from([0.0, 0.01, 0.3, 1.0]),
    frequency_penalty=st.sampled_from([0.0, 0.5, -1.0]),
    presence_penalty=st.sampled_from([0.0, 0.7, -0.3]),
    repetition_penalty=st.sampled_from([1.0, 1.3, 0.8]),
    logit_bias=st.dictionaries(tokens, st.sampled_from([-100.0, -1.5, 2.0]), max_size=3),
    bad_words=words,
    min_tokens=st.integers(0, 6),
    seed=st.integers(0, 2**64 - 1),
    choice=st.integers(0, 3),
)
requests = st.builds(
    request,
    params,
    prompt=st.lists(tokens, min_size=1, max_size=3),
    output=st.lists(tokens, max_size=6),
    ends=st.lists(tokens, max_size=3),
)
SMALL = {road: sampler_of(road, VOCAB) for road in ROADS}


def mask_of(allowed: Sequence[int], vocab_size: int) -> NDArray[np.uint32]:
    mask = np.zeros(-(-vocab_size // 32), dtype=np.uint32)
    for token in allowed:
        mask[token // 32] |= np.uint32(1 << token % 32)
    return mask


@given(st.sampled_from(ROADS), logit_rows, requests, masks)
@settings(max_examples=200, deadline=None)
def test_every_step_is_the_naive_one(road: str, values: list[float], asked: Request, allowed: list[int] | None) -> None:
    expected = naive(row(*values), asked, allowed)
    barriers = {} if allowed is None else {"r": mask_of(allowed, VOCAB)}
    sampled = SMALL[road].sample(row(*values)[None], [asked], barriers)
    assert sampled.tokens == ({} if expected is None else {"r": expected})
    assert sampled.failures == ({"r": NOTHING_LEFT} if expected is None else {})


def test_greedy_takes_the_lowest_id_among_equals(road: str) -> None:
    assert outcome(road, row(1, 3, 2, 3, 3), request(GREEDY)) == 1
    assert outcome(road, row(-1, -0.0, 0.0, -0.0), request(GREEDY)) == 1
    assert outcome(road, row(-1, 0.0, -0.0), request(replace(GREEDY, logit_bias={0: -1.0}))) == 1
    wide = np.full(5000, -3.0, dtype=np.float32)
    assert outcome(road, wide, request(GREEDY)) == 0
    wide[4097:] = -2.0
    assert outcome(road, wide, request(GREEDY)) == 4097


def test_repetition_counts_the_prompt_and_the_others_do_not(road: str) -> None:
    logits = row(2.0, 1.9, -1.0)
    assert outcome(road, logits, request(replace(GREEDY, repetition_penalty=1.5), prompt=(0,))) == 1
    both = replace(GREEDY, frequency_penalty=2.0, presence_penalty=2.0)
    assert outcome(road, logits, request(both, prompt=(0, 0))) == 0
    assert outcome(road, logits, request(replace(GREEDY, frequency_penalty=0.2), prompt=(2,), output=(0,))) == 1
    assert outcome(road, logits, request(replace(GREEDY, presence_penalty=0.2), prompt=(2,), output=(0,))) == 1


def test_frequency_counts_and_presence_does_not(road: str) -> None:
    logits, output = row(2.0, 1.0, 0.0), (0, 0, 0)
    assert outcome(road, logits, request(replace(GREEDY, presence_penalty=0.4), output=output)) == 0
    assert outcome(road, logits, request(replace(GREEDY, frequency_penalty=0.4), output=output)) == 1


def test_no_end_before_min_tokens(road: str) -> None:
    params = replace(GREEDY, min_tokens=2)
    logits = row(9, 1, 8)
    taken = [outcome(road, logits, request(params, output=(1,) * length, ends=(0, 2))) for length in range(4)]
    assert taken == [1, 1, 0, 0]


def test_an_end_that_the_model_cannot_say_needs_no_bar(road: str) -> None:
    assert outcome(road, row(1, 2), request(replace(GREEDY, min_tokens=9), ends=(1, 7))) == 0


def test_bias_lifts_and_bars(road: str) -> None:
    assert outcome(road, row(1, 2, 3), request(replace(GREEDY, logit_bias={0: 5.0}))) == 0
    assert outcome(road, row(1, 2, 3), request(replace(GREEDY, logit_bias={2: -100.0}))) == 1


def test_a_bad_word_loses_its_last_token_only_behind_its_beginning(road: str) -> None:
    logits, params = row(0, 1, 2, 3), replace(GREEDY, bad_words=((1, 2, 3),))
    assert outcome(road, logits, request(params, prompt=(1,), output=(2,))) == 2, "it may begin in the prompt"
    assert outcome(road, logits, request(params, prompt=(1, 2))) == 2
    assert outcome(road, logits, request(params, prompt=(2, 1))) == 3
    assert outcome(road, logits, request(params, prompt=(1,), output=(2, 0))) == 3
    assert outcome(road, logits, request(params, prompt=(2,))) == 3, "longer than all there is"
    assert outcome(road, logits, request(replace(GREEDY, bad_words=((3,), (2,))))) == 1


def test_a_mask_comes_before_everything_else(road: str) -> None:
    logits = np.zeros(70, dtype=np.float32)
    lifted = replace(GREEDY, logit_bias={5: 1000.0}, repetition_penalty=0.5)
    assert outcome(road, logits, request(lifted), mask_of([33, 69], 70)) == 33
    assert outcome(road, logits, request(lifted), mask_of([69], 70)) == 69
    drawn = {outcome(road, logits, request(replace(DRAWN, seed=n)), mask_of([3, 68], 70)) for n in range(40)}
    assert drawn == {3, 68}


def test_the_row_is_left_as_it_was(road: str) -> None:
    logits = row(1, 2, 3)
    params = replace(GREEDY, logit_bias={0: 5.0}, temperature=0.5, repetition_penalty=2.0, bad_words=((1,),))
    outcome(road, logits, request(params))
    assert logits.tolist() == [1, 2, 3]


@pytest.mark.parametrize("narrow", [{"top_k": 1}, {"top_p": 1e-9}, {"min_p": 1.0}, {"temperature": 1e-320}], ids=str)
def test_the_narrowest_choice_is_the_best_token(road: str, narrow: dict[str, Any]) -> None:
    asked = replace(DRAWN, **narrow)
    drawn = {outcome(road, row(0.1, 0.3, 0.2), request(replace(asked, seed=seed))) for seed in range(50)}
    assert drawn == {1}


def test_equals_at_the_border_of_top_k_leave_the_lower_id(road: str) -> None:
    params = replace(DRAWN, top_k=2, temperature=5.0)
    drawn = {outcome(road, row(1, 5, 1, 1), request(replace(params, seed=seed))) for seed in range(100)}
    assert drawn == {0, 1}


def test_a_wide_vocabulary_is_cut_as_a_small_one(road: str) -> None:
    """More tokens hold top-p's mass than the samplers look at first."""
    logits = np.random.default_rng(0).normal(0, 0.01, 5000).astype(np.float32)
    for seed in range(10):
        for cut in ({"top_p": 0.9, "min_p": 0.5}, {"top_p": 0.999999}, {"top_k": 3000}, {"top_k": 700, "top_p": 0.5}):
            asked = request(replace(DRAWN, seed=seed, **cut))
            assert outcome(road, logits, asked) == naive(logits, asked)


def test_draws_follow_the_probabilities(road: str) -> None:
    """Chi-square over 10,000 seeds at a level of 1e-4: a fixed draw, so the test passes always or never."""
    logits = row(2.0, 1.0, 0.0, -1.0, 0.5)
    temperature, count = 0.8, 10_000
    sampler, rows = sampler_of(road, 5), np.tile(logits, (100, 1))
    drawn: Counter[int] = Counter()
    for first in range(0, count, len(rows)):
        asked = [
            Request(f"{seed}", replace(DRAWN, temperature=temperature, seed=seed), [0], 1, 0, 0, frozenset())
            for seed in range(first, first + len(rows))
        ]
        drawn.update(sampler.sample(rows, asked).tokens.values())
    weights = np.exp(logits.astype(np.float64) / temperature)
    expected = count * weights / weights.sum()
    seen = np.array([drawn[token] for token in range(len(logits))])
    assert ((seen - expected) ** 2 / expected).sum() < 23.5  # 4 degrees of freedom


def test_a_draw_is_a_function_of_seed_choice_and_offset(road: str) -> None:
    logits = np.zeros(200, dtype=np.float32)
    params = replace(DRAWN, seed=5)
    again = outcome(road, logits, request(params, prompt=(9, 9, 9)))
    assert outcome(road, logits, request(params)) == again
    others = [replace(params, seed=6), replace(params, choice=1)]
    assert any(outcome(road, logits, request(other)) != again for other in others)
    assert len({outcome(road, logits, request(params, output=(1,) * length)) for length in range(20)}) > 10


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_nothing_to_choose_from_fails_with_a_code(road: str, temperature: float) -> None:
    params = replace(DRAWN, min_tokens=1, temperature=temperature)
    assert outcome(road, row(1, 2), request(params, ends=(0, 1))) == NOTHING_LEFT
    assert outcome(road, row(1, 2), request(params), mask_of([], 2)) == NOTHING_LEFT
    assert NOTHING_LEFT.code == "invalid_request"


@pytest.mark.parametrize("value", [np.nan, -np.nan, np.inf, -np.inf], ids=str)
@pytest.mark.parametrize("asked", [GREEDY, DRAWN, replace(GREEDY, logit_bias={0: 1.0})], ids=["plain", "drawn", "bias"])
def test_a_row_that_is_not_finite_fails_its_request_alone(road: str, value: float, asked: SamplingParams) -> None:
    rows = np.zeros((3, 3000), dtype=np.float32)
    rows[1, 2900] = value
    names = [replace_id(request(asked), name) for name in "abc"]
    sampled = sampler_of(road, 3000).sample(rows, names)
    assert sampled.failures == {"b": NOT_FINITE}
    assert sampled.tokens.keys() == {"a", "c"}


def test_a_fault_in_one_requests_sampling_is_its_own(road: str) -> None:
    """A token that no vocabulary of three has: the engine takes no such request, and a bug may make one."""
    asked = replace(GREEDY, frequency_penalty=1.0, logit_bias={1: 1.0})
    names = [
        replace_id(request(asked, output=output), name) for name, output in zip("abc", ((), (7,), ()), strict=True)
    ]
    sampled = sampler_of(road, 3).sample(np.zeros((3, 3), dtype=np.float32), names)
    assert sampled.tokens == {"a": 1, "c": 1}
    assert {name: failure.code for name, failure in sampled.failures.items()} == {"b": "engine_error"}
    assert not sampler_of(road, 3).sample(np.zeros((1, 3), dtype=np.float32), names[1:2]).tokens


def test_the_largest_numbers_there_are(road: str) -> None:
    logits = row(3.4e38, -3.4e38, 3.4e38)
    for params in (GREEDY, replace(DRAWN, top_p=0.4), replace(DRAWN, top_k=1), replace(DRAWN, temperature=1e-5)):
        assert outcome(road, logits, request(params)) in (0, 2)
        assert outcome(road, logits, request(params)) == naive(logits, request(params))


def replace_id(asked: Request, name: str) -> Request:
    asked.id = name
    return asked


def test_smallest_gap_is_the_logarithm() -> None:
    assert float(log(np.array(0.05))) == pytest.approx(math.log(0.05), rel=1e-15)
