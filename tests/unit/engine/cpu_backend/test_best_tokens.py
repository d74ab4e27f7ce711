"""The best token found while logits are made is the one that the sampler finds among them."""

from dataclasses import dataclass, fields, replace

import numpy as np
import pytest
from numpy.typing import NDArray

from engine import SamplingParams
from engine.batch import PageLayout
from engine.models.causal_lm import CausalLM, ChoosesBest
from tests.unit.engine.cpu_backend.drawn_models import LLAMA, VOCAB, Drawn, fused, why_not

pytestmark = pytest.mark.skipif(why_not() is not None, reason=f"the fused backend: {why_not()}")

PAGES = PageLayout(4, 16)
SHAPE = replace(LLAMA, vocab_size=3 * 64 + 6)


def both(model: CausalLM, hidden: NDArray[np.float32]) -> tuple[list[int], NDArray[np.float32]]:
    assert isinstance(model, ChoosesBest)
    logits = model.logits(hidden).copy()
    return model.best_tokens(hidden).tolist(), logits


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("rows", [1, 7, 60])
def test_they_are_the_largest_logits(threads: int, rows: int) -> None:
    model = fused(SHAPE, PAGES, threads=threads)
    random = np.random.default_rng(rows)
    for _ in range(5):
        found, logits = both(model, random.standard_normal((rows, SHAPE.hidden_size), dtype=np.float32))
        assert found == logits.argmax(axis=1).tolist()


def test_of_equals_the_lowest_wins_and_none_beyond_the_vocabulary() -> None:
    """A row of zeros has all logits alike, and those of the padding, too."""
    found, logits = both(fused(SHAPE, PAGES, threads=2), np.zeros((3, SHAPE.hidden_size), dtype=np.float32))
    assert not logits.any()
    assert found == [0, 0, 0]


@dataclass(frozen=True, slots=True)
class Shaped(Drawn):
    """Output rows without a positive weight; where `alike`, some of them the same and nearest to zero."""

    alike: tuple[int, ...] = ()

    def take(self, role: str, shape: tuple[int, ...], layer: int | None = None) -> NDArray[np.float32]:
        drawn: NDArray[np.float32] = super(Shaped, self).take(role, shape, layer)
        if role == "output":
            drawn = -np.abs(drawn) - np.float32(0.1)
            drawn[list(self.alike)] = -0.01
        return np.abs(drawn) if role == "final_norm" else drawn


def positive_rows(count: int) -> NDArray[np.float32]:
    return np.abs(np.random.default_rng(4).standard_normal((count, SHAPE.hidden_size), dtype=np.float32))


@pytest.mark.parametrize("vocab", [65, 100, 129, 192])
def test_a_largest_logit_below_zero_is_not_lost_to_the_padding(vocab: int) -> None:
    model = fused(replace(LLAMA, vocab_size=vocab), PAGES, weights=Shaped())
    found, logits = both(model, positive_rows(40))
    assert logits.max() < 0
    assert found == logits.argmax(axis=1).tolist()


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_of_equal_ones_in_tiles_of_several_threads_the_lowest_wins(threads: int) -> None:
    model = fused(SHAPE, PAGES, threads=threads, weights=Shaped(alike=(5, 70, 133)))
    for _ in range(20):
        found, _ = both(model, positive_rows(3))
        assert found == [5, 5, 5]


@pytest.mark.parametrize("broken", [np.nan, np.inf, -np.inf])
def test_a_row_that_is_not_finite_is_said_so_and_its_neighbours_are_not(broken: float) -> None:
    model = fused(SHAPE, PAGES, threads=2)
    hidden = np.random.default_rng(1).standard_normal((5, SHAPE.hidden_size), dtype=np.float32)
    sound, _ = both(model, hidden)
    hidden[2, 3] = broken
    found, _ = both(model, hidden)
    assert found == [*sound[:2], -1, *sound[3:]]


@pytest.mark.parametrize(
    "params",
    [
        SamplingParams(4, temperature=0.5),
        SamplingParams(4, temperature=0, logprobs=0),
        SamplingParams(4, temperature=0, repetition_penalty=1.1),
        SamplingParams(4, temperature=0, frequency_penalty=0.1),
        SamplingParams(4, temperature=0, presence_penalty=-0.1),
        SamplingParams(4, temperature=0, min_tokens=1),
        SamplingParams(4, temperature=0, logit_bias={1: 0.5}),
        SamplingParams(4, temperature=0, bad_words=((1,),)),
    ],
)
def test_whoever_asks_for_more_goes_to_the_sampler(params: SamplingParams) -> None:
    assert not params.takes_best
    assert SamplingParams(4, temperature=0, top_p=0.5, top_k=3, seed=7, stop_token_ids=(VOCAB - 1,)).takes_best


def test_every_parameter_is_known_to_matter_or_not() -> None:
    """A new one has to be thought of here, and in `takes_best`."""
    asks_for_more = {
        "temperature", "logprobs", "repetition_penalty", "frequency_penalty", "presence_penalty", "min_tokens",
        "logit_bias", "bad_words", "grammar",
    }  # fmt: skip
    changes_nothing = {
        "max_tokens", "top_p", "top_k", "min_p", "seed", "choice", "ignore_eos", "stop_token_ids", "prompt_logprobs",
    }  # fmt: skip
    assert {field.name for field in fields(SamplingParams)} == asks_for_more | changes_nothing
