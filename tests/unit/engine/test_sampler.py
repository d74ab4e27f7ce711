"""One row of logits, one token: every step of the sampler against a naive formula, and the draw against its law."""

import math
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from engine.noise import gumbel
from engine.request import Request, SamplingParams
from engine.sampler import sample

Row = NDArray[np.float32]
GREEDY = SamplingParams(max_tokens=64, temperature=0.0)
VOCAB = 12


def request(
    params: SamplingParams, prompt: tuple[int, ...] = (0,), output: tuple[int, ...] = (), ends: tuple[int, ...] = ()
) -> Request:
    return Request("r", params, [*prompt, *output], len(prompt), 0, 0, frozenset(ends))


def row(*values: float) -> Row:
    return np.array(values, dtype=np.float32)


def naive(logits: Row, asked: Request) -> int:
    """The same steps by dictionaries and loops."""
    params, output = asked.params, asked.ids[asked.prompt_length :]
    scores = {token: float(value) for token, value in enumerate(logits)}
    for token, bias in params.logit_bias.items():
        scores[token] += bias
    for token in set(asked.ids):
        factor = params.repetition_penalty
        scores[token] = scores[token] / factor if scores[token] > 0 else scores[token] * factor
    for token, count in Counter(output).items():
        scores[token] -= params.frequency_penalty * count + params.presence_penalty
    if len(output) < params.min_tokens:
        for token in asked.end_ids:
            scores[token] = -math.inf
    if params.temperature == 0:
        return max(scores, key=lambda token: (scores[token], -token))
    scores = {token: score / params.temperature for token, score in scores.items()}
    top = max(scores.values())
    order = sorted(scores, key=lambda token: (-scores[token], token))
    if params.top_k:
        order = order[: params.top_k]
    if params.top_p < 1:
        total, mass, kept = sum(math.exp(scores[token] - top) for token in order), 0.0, []
        for token in order:
            kept.append(token)
            mass += math.exp(scores[token] - top)
            if mass >= params.top_p * total:
                break
        order = kept
    order = [token for token in order if math.exp(scores[token] - top) >= params.min_p]
    noise = gumbel(params.seed, params.choice, len(output), np.arange(len(logits)))
    return max(order, key=lambda token: (scores[token] + noise[token], -token))


@st.composite
def asked(draw: st.DrawFn) -> tuple[Row, Request]:
    logits = draw(st.lists(st.integers(-40, 40), min_size=VOCAB, max_size=VOCAB))
    ids = st.lists(st.integers(0, VOCAB - 1), max_size=6)
    output = tuple(draw(ids))
    params = SamplingParams(
        max_tokens=64,
        temperature=draw(st.sampled_from([0.0, 0.4, 1.0, 1.7])),
        top_k=draw(st.integers(0, VOCAB + 1)),
        top_p=draw(st.sampled_from([1.0, 0.95, 0.5, 0.05])),
        min_p=draw(st.sampled_from([0.0, 0.01, 0.3])),
        frequency_penalty=draw(st.sampled_from([0.0, 0.5, -1.0])),
        presence_penalty=draw(st.sampled_from([0.0, 0.7, -0.3])),
        repetition_penalty=draw(st.sampled_from([1.0, 1.3, 0.8])),
        logit_bias=draw(st.dictionaries(st.integers(0, VOCAB - 1), st.sampled_from([-100.0, -1.5, 2.0]), max_size=3)),
        min_tokens=draw(st.integers(0, 6)),
        seed=draw(st.integers(0, 2**64 - 1)),
        choice=draw(st.integers(0, 3)),
    )
    ends = tuple(draw(st.lists(st.integers(0, VOCAB - 1), max_size=3)))
    return row(*(value / 4 for value in logits)), request(params, (draw(st.integers(0, VOCAB - 1)),), output, ends)


@given(asked())
@settings(max_examples=400, deadline=None)
def test_every_step_is_the_naive_one(case: tuple[Row, Request]) -> None:
    assert sample(*case) == naive(*case)


def test_greedy_takes_the_lowest_id_among_equals() -> None:
    assert sample(row(1, 3, 2, 3, 3), request(GREEDY)) == 1


def test_repetition_counts_the_prompt_and_the_others_do_not() -> None:
    logits = row(2.0, 1.9, -1.0)
    assert sample(logits, request(replace(GREEDY, repetition_penalty=1.5), prompt=(0,))) == 1
    assert sample(logits, request(replace(GREEDY, frequency_penalty=2.0, presence_penalty=2.0), prompt=(0, 0))) == 0
    assert sample(logits, request(replace(GREEDY, frequency_penalty=0.2), prompt=(2,), output=(0,))) == 1
    assert sample(logits, request(replace(GREEDY, presence_penalty=0.2), prompt=(2,), output=(0,))) == 1


def test_frequency_counts_and_presence_does_not() -> None:
    logits, output = row(2.0, 1.0, 0.0), (0, 0, 0)
    assert sample(logits, request(replace(GREEDY, presence_penalty=0.4), output=output)) == 0
    assert sample(logits, request(replace(GREEDY, frequency_penalty=0.4), output=output)) == 1


def test_no_end_before_min_tokens() -> None:
    params = replace(GREEDY, min_tokens=2)
    logits = row(9, 1, 8)
    assert [sample(logits, request(params, output=(1,) * length, ends=(0, 2))) for length in range(4)] == [1, 1, 0, 0]


def test_bias_lifts_and_bars() -> None:
    assert sample(row(1, 2, 3), request(replace(GREEDY, logit_bias={0: 5.0}))) == 0
    assert sample(row(1, 2, 3), request(replace(GREEDY, logit_bias={2: -100.0}))) == 1


def test_the_row_is_left_as_it_was() -> None:
    logits = row(1, 2, 3)
    sample(logits, request(replace(GREEDY, logit_bias={0: 5.0}, temperature=0.5, repetition_penalty=2.0)))
    assert logits.tolist() == [1, 2, 3]


@pytest.mark.parametrize("params", [{"top_k": 1}, {"top_p": 1e-9}, {"min_p": 1.0}], ids=str)
def test_the_narrowest_choice_is_the_best_token(params: dict[str, float]) -> None:
    asked = SamplingParams(max_tokens=64, temperature=1.0, **params)  # type: ignore[arg-type]
    drawn = {sample(row(0.1, 0.3, 0.2), request(replace(asked, seed=seed))) for seed in range(50)}
    assert drawn == {1}


def test_equals_at_the_border_of_top_k_leave_the_lower_id() -> None:
    params = SamplingParams(max_tokens=64, top_k=2)
    drawn = {sample(row(1, 5, 1, 1), request(replace(params, seed=seed, temperature=5.0))) for seed in range(100)}
    assert drawn == {0, 1}


def test_a_wide_vocabulary_is_cut_as_a_small_one() -> None:
    """More tokens hold top-p's mass than the sampler looks at first."""
    logits = np.random.default_rng(0).normal(0, 0.01, 5000).astype(np.float32)
    for seed in range(20):
        params = SamplingParams(max_tokens=64, top_p=0.9, min_p=0.5, seed=seed)
        assert sample(logits, request(params)) == naive(logits, request(params))


def test_draws_follow_the_probabilities() -> None:
    """Chi-square over 20,000 offsets at a level of 1e-4: a fixed draw, so the test passes always or never."""
    logits = row(2.0, 1.0, 0.0, -1.0, 0.5)
    temperature, count = 0.8, 20_000
    asked = SamplingParams(max_tokens=64, temperature=temperature)
    drawn = Counter(sample(logits, request(replace(asked, seed=seed))) for seed in range(count))
    weights = np.exp(logits.astype(np.float64) / temperature)
    expected = count * weights / weights.sum()
    seen = np.array([drawn[token] for token in range(len(logits))])
    assert ((seen - expected) ** 2 / expected).sum() < 23.5  # 4 degrees of freedom


def test_a_draw_is_a_function_of_seed_choice_and_offset() -> None:
    logits = np.zeros(200, dtype=np.float32)
    params = SamplingParams(max_tokens=64, seed=5)
    again = sample(logits, request(params, prompt=(9, 9, 9)))
    assert sample(logits, request(params)) == again
    others = [replace(params, seed=6), replace(params, choice=1)]
    assert any(sample(logits, request(other)) != again for other in others)
    assert len({sample(logits, request(params, output=(1,) * length)) for length in range(20)}) > 10


def test_nothing_to_choose_from_is_an_error() -> None:
    params = SamplingParams(max_tokens=64, min_tokens=1)
    with pytest.raises(ValueError, match="finite"):
        sample(row(1, 2), request(params, ends=(0, 1)))
