"""What sizing counts is what the fused backend takes, and where there is less it goes on with what it had."""

from dataclasses import replace
from itertools import count

import numpy as np
import pytest
from numpy.typing import NDArray

from engine.batch import PageLayout
from engine.cpu_backend import room
from engine.cpu_backend.memory import aligned
from engine.sizing import weight_bytes
from tests.unit.engine.cpu_backend.drawn_models import LLAMA, OWN_OUTPUT, SHAPES, Drawn, fused, why_not

pytestmark = pytest.mark.skipif(why_not() is not None, reason=f"the fused backend: {why_not()}")

PAGES = PageLayout(6, 16)


@pytest.mark.parametrize("head_dim", [16, 64, 80, 128])
def test_pages_take_what_they_are_counted_as(head_dim: int) -> None:
    shape = replace(LLAMA, head_dim=head_dim)
    arrays = fused(shape, PAGES)._arrays  # type: ignore[attr-defined]
    taken = sum(arrays[name].nbytes for name in ("keys", "key_scales", "values", "value_scales"))
    assert taken == PAGES.count * PAGES.size * shape.kv_bytes_per_token("exact")


@pytest.mark.parametrize("weights", [OWN_OUTPUT, Drawn(four_bits=True)], ids=["a byte each", "in four bits, too"])
def test_weights_take_no_more_than_they_are_counted_as(weights: Drawn) -> None:
    shape = SHAPES["head of 64"]  # without any padding
    arrays = fused(shape, PAGES, weights=weights)._arrays  # type: ignore[attr-defined]
    linear = ("embedding", "qkv", "o", "gate_up", "down", "output")
    names = [name for name in arrays if name.removesuffix("_scale").removesuffix("_levels") in linear]
    counted = weight_bytes("exact", shape)
    assert 0.6 * counted < sum(arrays[name].nbytes for name in names) <= counted
    assert any(name.endswith("_levels") for name in names) == weights.four_bits


def runs_short(monkeypatch: pytest.MonkeyPatch, arrays: int) -> None:
    """No memory after so many more arrays."""
    number = count()

    def scarce(shape: tuple[int, ...], dtype: type[np.generic]) -> NDArray[np.generic]:
        if next(number) >= arrays:
            raise MemoryError
        return aligned(shape, dtype)

    monkeypatch.setattr(room, "aligned", scarce)


@pytest.mark.parametrize("arrays", range(3))
def test_a_step_that_finds_no_memory_leaves_the_smaller_ones_as_they_were(
    monkeypatch: pytest.MonkeyPatch, arrays: int
) -> None:
    model = fused(LLAMA, PAGES)
    few, many = (np.random.default_rng(1).standard_normal((rows, LLAMA.hidden_size), np.float32) for rows in (2, 50))
    expected = model.logits(few).copy(), model.best_tokens(few).tolist()  # type: ignore[attr-defined]
    with monkeypatch.context() as scarce:
        runs_short(scarce, arrays)
        for ask in (model.logits, model.best_tokens):  # type: ignore[attr-defined]
            with pytest.raises(MemoryError):
                ask(many)
    np.testing.assert_array_equal(model.logits(few), expected[0])
    assert model.best_tokens(few).tolist() == expected[1]  # type: ignore[attr-defined]
    model.warm()  # type: ignore[attr-defined]
    assert len(model.best_tokens(many)) == len(many)  # type: ignore[attr-defined]
