"""Every weight of every architecture, as the engine takes it from a folder, against what transformers has in memory."""

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

from engine.loaders import describe, open_model
from engine.loaders.architectures import IN_CONFIG
from engine.loaders.inventory import model_weights, name_of
from tests.unit.engine.loaders.checkpoints import ARCHITECTURES, random_model, write_checkpoint

DTYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


def check_weights(path: Path, model: PreTrainedModel) -> None:
    layout = IN_CONFIG[type(model).__name__].layout
    theirs: dict[str, Tensor] = dict(model.state_dict())
    with open_model(path) as opened:
        weights = opened.weights
        for role, layer, shape in model_weights(opened.shape, weights.has("output")):
            name = name_of(layout.names, role, layer)
            assert name is not None
            assert weights.has(role, layer)
            wanted = theirs.pop(name).float() + (layout.norm_offset if role.endswith("norm") else 0.0)
            assert torch.equal(torch.from_numpy(weights.take(role, shape, layer)), wanted), name
        assert set(theirs) <= ({"lm_head.weight"} if model.config.tie_word_embeddings else set())
        absent = {"q_bias", "q_norm", "attention_post_norm"} - {
            role for role, _, _ in model_weights(opened.shape, True)
        }
        assert not any(weights.has(role, 0) for role in absent)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_weight_is_theirs(tmp_path: Path, architecture: str) -> None:
    model = random_model(architecture)
    check_weights(write_checkpoint(model, tmp_path / architecture), model)


@pytest.mark.parametrize("architecture", ["llama", "gemma3"])
def test_where_a_config_does_not_say_its_architecture_knows_which_output_layer(
    tmp_path: Path, architecture: str
) -> None:
    model = random_model(architecture)
    folder = write_checkpoint(model, tmp_path / architecture)
    config = json.loads((folder / "config.json").read_text())
    config.pop("tie_word_embeddings", None)
    (folder / "config.json").write_text(json.dumps(config))
    check_weights(folder, model)


@pytest.mark.parametrize("kind", DTYPES)
def test_each_type_of_a_sharded_checkpoint(tmp_path: Path, kind: str) -> None:
    model = random_model("qwen3")
    module: torch.nn.Module = model
    module.to(DTYPES[kind])
    folder = write_checkpoint(model, tmp_path, max_shard_size="20KB")
    shards = sorted(folder.glob("*.safetensors"))
    assert len(shards) > 3
    check_weights(folder, model)
    described = describe(folder)
    assert described.quantization == kind
    assert described == describe(shards[1])
