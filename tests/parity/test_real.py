"""Our decoders against transformers on real weights: the portable one in the reference numerics, the fused one near."""

from pathlib import Path

import pytest

from tests.parity.real import BOUND, GEMMA3, SMOLLM2, drawn, fused_runs, ours, theirs, written
from tests.parity.rows import relative_error

CUTS = (66, 1)
LENGTH = 70
NEAR = 0.15
"""Twice what whole numbers lose on a written text; `python -m tests.parity.real` holds it to the portable backend's."""


@pytest.mark.parametrize(
    "path",
    [pytest.param(SMOLLM2, marks=pytest.mark.real_model, id="smollm2"), pytest.param(GEMMA3, id="gemma3")],
)
def test_logits_are_theirs(path: Path) -> None:
    if not path.exists():
        pytest.skip(f"{path.name} is not on this machine; `python -m tests.parity.real` compares it where it is")
    noise, text = drawn(path, LENGTH), written(path, LENGTH)
    on_noise, on_text = theirs(path, noise, text)
    assert relative_error(ours(path, noise, CUTS, "torch", "reference"), on_noise) < BOUND
    if fused_runs(path):
        assert relative_error(ours(path, text, CUTS, "cpu", "exact"), on_text) < NEAR
