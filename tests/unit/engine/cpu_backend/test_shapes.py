"""Widths that fill no group, heads of every size, and all options at once: the fused backend is as near to the textbook
as the portable one, row by row, and its padding shows nowhere."""

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from engine.batch import PageLayout
from tests.unit.engine.cpu_backend.drawn_models import (
    LLAMA,
    SHAPES,
    WEIGHTS,
    asked,
    fused,
    portable,
    rows_of,
    step,
    why_not,
)

pytest.importorskip("numba")
pytestmark = pytest.mark.skipif(why_not() is not None, reason="the fused backend does not run here")
PAGES = PageLayout(6, 16)
LENGTH = 70


CASES = [*((name, kind) for name in SHAPES for kind in ("own output", "tied")), ("head of 64", "in four bits")]


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_rows_and_logits_are_as_near_to_the_textbook_as_the_portable_decoders(name: str, kind: str) -> None:
    shape, weights, request = SHAPES[name], WEIGHTS[kind], asked(0, LENGTH, (5, 2, 4, 1, 3))
    models = (
        fused(shape, PAGES, weights=weights),
        portable(shape, PAGES, "exact", weights=weights),
        portable(shape, PAGES, "reference", weights=weights),
    )
    mine, theirs, wanted = (rows_of(model, request, (50, 1), PAGES.size) for model in models)
    assert apart(mine, wanted) < 1.3 * apart(theirs, wanted) < 0.1
    assert (each(mine, wanted) < 3.0 * each(theirs, wanted)).all()
    ours, others = (model.logits(theirs) for model in models[:2])
    assert ours.shape == (LENGTH, shape.vocab_size)
    assert apart(ours, others) < 1e-6


def test_angles_are_right_beyond_those_that_are_computed_at_once() -> None:
    """They are made for 4,096 positions at a time. What lies before the first of these rows is seen by none of them."""
    first, length, seen, pages = 4080, 4130, 20, PageLayout(261, 16)
    shape, request = replace(LLAMA, layer_windows=(seen, seen)), asked(0, length, range(1, 261))
    others = (portable(shape, pages, numerics, context=length) for numerics in ("exact", "reference"))
    models = fused(shape, pages, context=length), *others
    batch = step([(request, first, length)], pages.size)
    mine, theirs, wanted = (model.forward(batch)[2 * seen :] for model in models)
    assert apart(mine, wanted) < 1.3 * apart(theirs, wanted) < 0.1


def apart(mine: NDArray[np.float32], wanted: NDArray[np.float32]) -> float:
    return float(np.linalg.norm(mine - wanted) / np.linalg.norm(wanted))


def each(mine: NDArray[np.float32], wanted: NDArray[np.float32]) -> NDArray[np.float32]:
    distances: NDArray[np.float32] = np.linalg.norm(mine - wanted, axis=1)
    return distances
