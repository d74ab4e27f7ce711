"""The twins that real files are compared with: of every architecture the same model again, or none at all."""

from dataclasses import replace

import pytest
import torch

from engine.loaders import open_model
from engine.models.shape import ModelShape
from tests.parity.pairs import Pair, drawn
from tests.parity.twin import twin
from tests.unit.engine.loaders.checkpoints import ARCHITECTURES


@pytest.mark.parametrize("architecture", [name for name in ARCHITECTURES if name != "llama3"])
def test_a_twin_is_the_model_that_was_written(pairs: dict[str, Pair], architecture: str) -> None:
    pair, ids = pairs[architecture], drawn(70)
    with open_model(pair.folder) as opened, torch.inference_mode():
        logits = twin(opened.weights, opened.shape)(torch.tensor([ids])).logits[0]
    torch.testing.assert_close(logits, pair.wanted(ids), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("architecture", "options"),
    [
        ("llama3", {}),
        ("qwen2", {"qk_norm": True}),
        ("qwen3", {"activation": "gelu_tanh"}),
        ("llama", {"attention_scale": 0.3}),
        ("gemma3", {"qk_norm": False}),
        ("gemma3", {"layer_windows": (None,) * 7}),
    ],
)
def test_a_shape_without_a_twin_is_refused(
    pairs: dict[str, Pair], architecture: str, options: dict[str, object]
) -> None:
    with open_model(pairs[architecture].folder) as opened:
        shape: ModelShape = replace(opened.shape, **options)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="twin here"):
            twin(opened.weights, shape)
