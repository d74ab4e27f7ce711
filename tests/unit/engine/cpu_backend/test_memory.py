"""What sizing counts is what the fused backend takes, and where there is less it goes on with what it had."""

from dataclasses import replace
from itertools import count
from types import SimpleNamespace
from typing import Any, NoReturn

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.unit.engine.cpu_backend.drawn_models import LLAMA, OWN_OUTPUT, SHAPES, Drawn, fused, why_not

if why_not() is not None:
    pytest.skip(f"the fused backend: {why_not()}", allow_module_level=True)

from engine.batch import PageLayout
from engine.cpu_backend import room
from engine.cpu_backend.memory import aligned
from engine.sizing import weight_bytes

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


def no_memory(*_: Any, **__: Any) -> NoReturn:
    raise MemoryError


def lacks_the_last(monkeypatch: pytest.MonkeyPatch) -> None:
    """No memory for the list of addresses, after all that they are of."""
    monkeypatch.setattr(room, "np", SimpleNamespace(**{**vars(np), "array": no_memory}))


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


def test_a_step_that_lacks_the_last_of_its_memory_leaves_no_half_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    memory, bests = room.WorkingMemory(LLAMA, 64, threads=2), room.BestMemory(threads=2)
    memory.for_rows(2)
    bests.for_rows(2)
    kept = memory._kept, memory._room, memory.x, bests._kept, bests._told, bests._tokens
    with monkeypatch.context() as scarce:
        lacks_the_last(scarce)
        for ask in (memory.for_rows, bests.for_rows):
            with pytest.raises(MemoryError):
                ask(50)
    now = memory._kept, memory._room, memory.x, bests._kept, bests._told, bests._tokens
    assert all(each is before for each, before in zip(now, kept, strict=True))
    memory.for_rows(50)
    bests.for_rows(50)
    assert len(memory.x) == len(bests._tokens) == 50
