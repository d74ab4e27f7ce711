"""Our decoder against transformers on real weights, in the reference numerics."""

from pathlib import Path

import pytest

from tests.parity.real import BOUND, GEMMA3, SMOLLM2, both, drawn
from tests.parity.rows import relative_error


@pytest.mark.parametrize(
    ("path", "length"),
    [
        pytest.param(SMOLLM2, 70, marks=pytest.mark.real_model, id="smollm2"),
        pytest.param(GEMMA3, 70, id="gemma3"),
    ],
)
def test_logits_are_theirs(path: Path, length: int) -> None:
    if not path.exists():
        pytest.skip(f"{path.name} is not on this machine; `python -m tests.parity.real` compares it where it is")
    ours, wanted = both(path, drawn(path, length), (66, 1))
    assert relative_error(ours, wanted) < BOUND
