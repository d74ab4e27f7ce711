"""One row of logits explained: against the formula, ties, extremes, and the same bits wherever the row lies."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray

from engine.logprobs import LOWEST, TokenLogprobs, explain

Row = NDArray[np.float32]
rows = arrays.arrays(np.float32, st.integers(1, 40), elements=st.floats(-60, 60, width=32))


def naive(logits: Row, token_id: int) -> float:
    scores = [float(value) for value in logits]
    return scores[token_id] - math.log(math.fsum(math.exp(score - max(scores)) for score in scores)) - max(scores)


@given(rows, st.data())
@settings(max_examples=200, deadline=None)
def test_every_number_is_the_formulas(logits: Row, data: st.DataObject) -> None:
    token_id = data.draw(st.integers(0, len(logits) - 1))
    alternatives = data.draw(st.integers(0, 20))
    entry = explain(logits, token_id, alternatives)
    assert entry.logprob == pytest.approx(naive(logits, token_id), rel=1e-6, abs=1e-7)
    order = sorted(range(len(logits)), key=lambda each: (-logits[each], each))
    assert [each for each, _ in entry.top] == order[:alternatives]
    assert all(value == explain(logits, each, 0).logprob for each, value in entry.top)


def test_all_probabilities_add_up_to_one() -> None:
    logits = np.random.default_rng(1).normal(0, 4, 49_152).astype(np.float32)
    rest = logits.astype(np.float64) + (explain(logits, 0, 0).logprob - float(logits[0]))
    assert math.fsum(np.exp(rest)) == pytest.approx(1.0, abs=2e-6)


def test_numbers_are_float32_and_finite_at_any_distance() -> None:
    logits = np.array([0.1, 3e38, -3e38], dtype=np.float32)
    assert explain(logits, 0, 3) == TokenLogprobs(LOWEST, ((1, 0.0), (0, LOWEST), (2, LOWEST)))
    entry = explain(np.array([0.1, 0.7], dtype=np.float32), 0, 2)
    for value in (entry.logprob, *(each for _, each in entry.top)):
        assert value == float(np.float32(value)) < 0


def test_a_row_has_the_same_bits_wherever_it_lies() -> None:
    logits = np.random.default_rng(2).normal(0, 3, 4_099).astype(np.float32)
    expected = explain(logits, 17, 20)
    for shift in range(1, 17):
        block = np.zeros((3, shift + len(logits)), dtype=np.float32)
        block[1, shift:] = logits
        assert explain(block[1, shift:], 17, 20) == expected
