"""A row's bits are its own: among 1 to 130 others, of its own text or of others', on one thread and on two, whatever
the pages; and a row that went wrong stays alone."""

import numpy as np
import pytest
from numpy.typing import NDArray

from engine.batch import PageLayout
from engine.models.causal_lm import CausalLM
from engine.request import Request
from tests.unit.engine.cpu_backend.drawn_models import (
    NEVER_ASKED,
    SHAPES,
    WEIGHTS,
    asked,
    fused,
    rows_of,
    step,
    why_not,
)

pytest.importorskip("numba")
pytestmark = pytest.mark.skipif(why_not() is not None, reason="the fused backend does not run here")
MOST = 130
# On two threads a step of a shared machine may wait for a core at every barrier: the counts around every cut.
FEW = (1, 2, 5, 6, 7, 8, 16, 47, 48, 49, 95, 96, 97, 98, 129, 130)
COUNTS = {1: tuple(range(1, MOST + 1)), 2: FEW}
MODELS = {"nine heads of three": "own output", "all of Gemma": "tied", "head of 64": "in four bits"}
Rows = NDArray[np.float32]


def with_logits(model: CausalLM, hidden: Rows) -> Rows:
    hidden = hidden.copy()
    return np.concatenate((hidden, model.logits(hidden)), axis=1)


@pytest.mark.parametrize("threads", COUNTS)
@pytest.mark.parametrize("name", MODELS)
def test_a_prompts_rows_are_those_computed_one_by_one(name: str, threads: int) -> None:
    pages = PageLayout(10, 16)
    request = asked(0, MOST, (9, 1, 8, 2, 7, 3, 6, 4, 5))
    alone = fused(SHAPES[name], pages, weights=WEIGHTS[MODELS[name]])
    wanted = with_logits(alone, rows_of(alone, request, (1,), pages.size))
    model = fused(SHAPES[name], pages, threads=threads, weights=WEIGHTS[MODELS[name]])
    for count in COUNTS[threads]:
        found = with_logits(model, model.forward(step([(request, 0, count)], pages.size)))
        assert np.array_equal(found, wanted[:count]), f"{count} rows"


@pytest.mark.parametrize("threads", COUNTS)
@pytest.mark.parametrize("name", MODELS)
def test_a_batchs_rows_are_those_of_each_request_alone(name: str, threads: int) -> None:
    """Every request has written its text before, and its last row is computed again among others."""
    pages = PageLayout(1 + 3 * MOST, 16)
    requests = [asked(number, 1 + 7 * number % 41, range(1 + 3 * number, 4 + 3 * number)) for number in range(MOST)]
    model = fused(SHAPES[name], pages, threads=threads, weights=WEIGHTS[MODELS[name]])
    wanted = np.concatenate([with_logits(model, rows_of(model, each, (50,), pages.size)[-1:]) for each in requests])
    for count in COUNTS[threads]:
        batch = step([last_row(each) for each in requests[:count]], pages.size)
        order = [int(chunk.request.id) for chunk in batch.chunks]
        assert np.array_equal(with_logits(model, model.forward(batch)), wanted[order]), f"{count} rows"


def last_row(request: Request) -> tuple[Request, int, int]:
    return request, len(request.ids) - 1, len(request.ids)


@pytest.mark.parametrize("name", SHAPES)
def test_pages_of_any_size_anywhere_give_the_same_bits(name: str) -> None:
    def rows(page_size: int, order: int, threads: int) -> Rows:
        """Of two requests, a part of each in every step."""
        model = fused(SHAPES[name], PageLayout(17, page_size), threads=threads)
        one, other = asked(0, 100, range(1, 17, 2)[::order]), asked(1, 90, range(2, 17, 2)[::order])
        steps = ((0, 50, 0, 30), (50, 51, 30, 31), (51, 52, 31, 80), (52, 100, 80, 90))
        batches = (step([(one, a, b), (other, c, d)], page_size) for a, b, c, d in steps)
        return np.concatenate([model.forward(batch).copy() for batch in batches])

    wanted = rows(16, 1, 1)
    for page_size, threads in ((16, 2), (32, 1), (64, 2)):
        assert np.array_equal(rows(page_size, -1, threads), wanted), f"pages of {page_size}, {threads} threads"


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("name", MODELS)
def test_a_row_that_went_wrong_stays_alone(name: str, value: float) -> None:
    """Its text too sees it from then on, and nobody else: neither beside it nor in its pages afterwards."""
    pages = PageLayout(10, 16)
    model = fused(SHAPES[name], pages, weights=WEIGHTS[MODELS[name]])
    bad, good = asked(0, 20, (1, 2)), asked(1, 20, (3, 4))
    wanted = rows_of(model, good, (20,), pages.size)
    bad.ids[7] = NEVER_ASKED
    model._arrays["embedding_scale"][NEVER_ASKED] = value  # type: ignore[attr-defined]
    hidden = model.forward(step([(bad, 0, 20), (good, 0, 20)], pages.size)).copy()
    sound = np.logical_and.reduce(np.isfinite(hidden), axis=1)
    assert sound[:7].all()
    assert not sound[7]
    assert np.array_equal(hidden[20:], wanted)
    heir = asked(1, 20, (2, 1))
    assert np.array_equal(rows_of(model, heir, (3,), pages.size), wanted)
