"""Queries and keys evened out at load: not a bit of float32 changes, and whole numbers lose less to a large element."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from engine.batch import PageLayout
from engine.loaders import open_model
from engine.loaders.checkpoint import Checkpoint
from engine.models.key_balance import balanced
from engine.models.shape import ModelShape
from engine.torch_backend.decoder import Decoder
from engine.torch_backend.numerics import choose_numerics
from engine.torch_backend.parts import Parts
from tests.parity.rows import logits, relative_error
from tests.tiny_model import VOCAB_SIZE
from tests.unit.engine.loaders.checkpoints import random_model, write_checkpoint

CPU = torch.device("cpu")
IDS: Sequence[int] = [(index * 97) % VOCAB_SIZE for index in range(70)]


def saved(architecture: str, folder: Path) -> Path:
    """A model in which one key element of each head is thirty times the others."""
    model = random_model(architecture, seed=3)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim == 2:
                parameter.mul_(7.0)
            elif "norm" in name:
                parameter.add_(1.0)
            if name.endswith("k_proj.bias"):
                parameter.view(2, -1)[:, 3] += 30.0
    return write_checkpoint(model, folder)


def computed(checkpoint: Checkpoint, shape: ModelShape, numerics: str) -> Tensor:
    policy = choose_numerics(numerics, CPU, shape.product_widths)
    parts = Parts(checkpoint, shape, policy, CPU)
    return logits(Decoder(parts, shape, policy, PageLayout(8, 16), 128, CPU), IDS, (len(IDS),))


def test_it_changes_no_float_and_helps_whole_numbers(tmp_path: Path) -> None:
    with open_model(saved("qwen2", tmp_path)) as opened:
        shape, weights = opened.shape, opened.weights
        even = balanced(weights, shape)
        wanted = computed(weights, shape, "reference")
        assert torch.equal(computed(even, shape, "reference"), wanted)
        before = relative_error(computed(weights, shape, "exact"), wanted)
        after = relative_error(computed(even, shape, "exact"), wanted)
        assert after < 0.7 * before


def test_only_powers_of_two_move(tmp_path: Path) -> None:
    with open_model(saved("qwen2", tmp_path)) as opened:
        shape, weights = opened.shape, opened.weights
        extents = (shape.kv_size, shape.hidden_size)
        ratio = weights.take("k", extents, 0) / balanced(weights, shape).take("k", extents, 0)
        found = np.unique(ratio)
        assert len(found) > 1
        assert (np.exp2(np.log2(found).round()) == found).all()
        heads = ratio[:, 0].reshape(shape.num_kv_heads, 2, -1)
        assert (heads[:, 0] == heads[:, 1]).all(), "the two elements of a rotary pair went different ways"


@pytest.mark.parametrize("architecture", ["llama", "gemma3"])
def test_models_without_biases_are_left_alone(architecture: str, tmp_path: Path) -> None:
    with open_model(saved(architecture, tmp_path)) as opened:
        weights = opened.weights
        assert balanced(weights, opened.shape) is weights
