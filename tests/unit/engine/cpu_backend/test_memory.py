"""What sizing counts is what the fused backend takes."""

from dataclasses import replace

import pytest

from engine.batch import PageLayout
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
