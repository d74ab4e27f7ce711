"""What configs and headers say of sizes and options: one model in both formats, scalings, and what is refused."""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import LlamaConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from engine.errors import ModelFileError
from engine.loaders import open_model
from engine.loaders.architectures import IN_CONFIG, IN_HEADER
from engine.loaders.inventory import model_weights, name_of
from engine.loaders.metadata import Metadata
from engine.models.shape import ModelShape, RotaryShape
from tests.tiny_model import Floats, llama_metadata, write_gguf
from tests.unit.engine.loaders.checkpoints import ARCHITECTURES, LLAMA3, SIZES, random_model, write_checkpoint

CLASSES = {architecture.name: named for named, architecture in IN_CONFIG.items()}
HEADERS = [(name, written.header) for name, written in ARCHITECTURES.items() if written.header is not None]


def shape_of(architecture: str, **entries: object) -> ModelShape:
    """The shape of a config of the usual sizes with these entries."""
    config = Metadata({**SIZES, **entries}, Path("config.json"))
    return IN_CONFIG[CLASSES[architecture]].shape(config)


def as_gguf(folder: Path, path: Path, name: str) -> Path:
    """The folder's model as a converter writes it. `name` is the header's architecture."""
    layout = IN_HEADER[name].layout
    with open_model(folder) as opened:
        shape, weights = opened.shape, opened.weights
        tensors: dict[str, Floats] = {}
        for role, layer, extents in model_weights(shape, weights.has("output")):
            values = weights.take(role, extents, layer)
            if layout.interleaved and role in ("q", "k"):
                heads = extents[0] // shape.head_dim
                values = values.reshape(heads, 2, shape.head_dim // 2, -1).swapaxes(1, 2).reshape(extents)
            tensors[str(name_of(layout.names, role, layer))] = values
    return write_gguf(path, header_of(shape, name), tensors | rope_factors(shape, name))


def rope_factors(shape: ModelShape, name: str) -> dict[str, Floats]:
    factors = shape.rotaries[0].factors
    if name != "llama" or factors is None:
        return {}
    return {"rope_freqs.weight": np.array(factors, dtype=np.float32)}


def header_of(shape: ModelShape, name: str) -> dict[str, object]:
    common = llama_metadata(
        name="twin",
        context_length=shape.context_length,
        hidden_size=shape.hidden_size,
        ffn_size=shape.ffn_size,
        num_layers=shape.num_layers,
        num_heads=shape.num_heads,
        num_kv_heads=shape.num_kv_heads,
        rope_theta=shape.rotaries[0].theta,
        rms_eps=shape.rms_eps,
    )
    header = {key.replace("llama.", f"{name}."): value for key, value in common.items()}
    header["general.architecture"] = name
    header[f"{name}.attention.key_length"] = header[f"{name}.attention.value_length"] = shape.head_dim
    header[f"{name}.rope.dimension_count"] = shape.head_dim
    if name == "gemma3":
        header["gemma3.attention.sliding_window"] = 16
        if shape.rotaries[0].factors is not None:
            header |= {"gemma3.rope.scaling.type": "linear", "gemma3.rope.scaling.factor": shape.rotaries[0].factors[0]}
    if name == "llama" and shape.layer_windows[0] is not None:
        header["llama.attention.sliding_window"] = shape.layer_windows[0]
    return header


@pytest.mark.parametrize(("architecture", "name"), HEADERS)
def test_a_header_says_what_the_config_said(tmp_path: Path, architecture: str, name: str) -> None:
    """Sizes, options and every weight, rows of llama's queries and keys in the converter's order."""
    folder = write_checkpoint(random_model(architecture), tmp_path / "folder")
    with open_model(folder) as theirs, open_model(as_gguf(folder, tmp_path / "twin.gguf", name)) as ours:
        assert rounded(ours.shape) == rounded(theirs.shape, gguf_scale=name == "gemma3")
        for role, layer, extents in model_weights(theirs.shape, theirs.weights.has("output")):
            wanted = theirs.weights.take(role, extents, layer)
            np.testing.assert_array_equal(ours.weights.take(role, extents, layer), wanted)


def rounded(shape: ModelShape, *, gguf_scale: bool = False) -> dict[str, object]:
    """The shape with floats as a header holds them; the scale of Gemma's scores follows from sizes there."""
    fields = {name: getattr(shape, name) for name in ModelShape.__dataclass_fields__}
    fields["rms_eps"] = np.float32(shape.rms_eps)
    fields["rotaries"] = [
        (np.float32(each.theta), None if each.factors is None else [np.float32(factor) for factor in each.factors])
        for each in shape.rotaries
    ]
    return fields | {"attention_scale": shape.head_dim**-0.5} if gguf_scale else fields


@pytest.mark.parametrize("head_dim", [16, 64, 128])
@pytest.mark.parametrize("trained", [64, 8192])
def test_llama3_divides_angles_as_transformers_does(head_dim: int, trained: int) -> None:
    scaling = LLAMA3 | {"original_max_position_embeddings": trained}
    config = LlamaConfig(**SIZES, rope_parameters=scaling, head_dim=head_dim)
    wanted, _ = ROPE_INIT_FUNCTIONS["llama3"](config, torch.device("cpu"))
    rotary = shape_of("llama", rope_parameters=scaling, head_dim=head_dim).rotaries[0]
    assert rotary.factors is not None
    pairs = np.arange(head_dim // 2)
    ours = rotary.theta ** (-2 * pairs / head_dim) / np.array(rotary.factors)
    np.testing.assert_allclose(ours, wanted.numpy(), rtol=2e-6)
    before = {key: value for key, value in scaling.items() if key != "rope_theta"}
    as_before = shape_of("llama", rope_theta=500_000.0, rope_scaling=before, head_dim=head_dim)
    assert as_before.rotaries[0] == rotary


def test_the_older_way_to_write_a_gemma_config() -> None:
    """As published: a pattern instead of layer types, two bases, one scaling."""
    shape = shape_of(
        "gemma3",
        rope_theta=1_000_000,
        rope_local_base_freq=10_000,
        rope_scaling={"factor": 8.0, "rope_type": "linear"},
        sliding_window=512,
        sliding_window_pattern=6,
        query_pre_attn_scalar=256,
        head_dim=256,
    )
    assert shape.rotaries == (RotaryShape(1e6, (8.0,) * 128), RotaryShape(1e4))
    assert shape.layer_rotary == (1, 1, 1, 1, 1, 0, 1)
    assert shape.layer_windows == (512,) * 5 + (None, 512)
    assert shape.attention_scale == 1 / 16
    assert shape.embedding_scale == pytest.approx(SIZES["hidden_size"] ** 0.5)


def test_windows_of_qwen_begin_at_a_layer_and_only_if_they_are_on() -> None:
    entries = {"sliding_window": 16, "max_window_layers": 5}
    assert shape_of("qwen2", **entries).layer_windows == (None,) * 7
    assert shape_of("qwen2", **entries, use_sliding_window=True).layer_windows == (None,) * 5 + (16,) * 2
    assert shape_of("qwen3", **entries, use_sliding_window=True).layer_windows == (None,) * 5 + (16,) * 2


def test_mistral_has_windows_only_where_it_says_so() -> None:
    assert shape_of("mistral", sliding_window=None).layer_windows == (None,) * 7
    assert shape_of("mistral", sliding_window=9).layer_windows == (9,) * 7


YARN = {"rope_type": "yarn", "factor": 4.0}
REFUSED: list[tuple[str, Mapping[str, object], str]] = [
    ("llama", {"rope_scaling": YARN}, "yarn"),
    ("qwen2", {"rope_scaling": {"type": "longrope"}}, "longrope"),
    ("qwen3", {"rope_parameters": YARN | {"rope_theta": 1e6}}, "yarn"),
    ("llama", {"rope_parameters": {"rope_type": "default", "partial_rotary_factor": 0.5}}, "part of each head"),
    ("llama", {"partial_rotary_factor": 0.25}, "part of each head"),
    ("llama", {"hidden_act": "relu"}, "relu"),
    ("gemma3", {"hidden_activation": "silu"}, "silu"),
    ("llama", {"attention_bias": True}, "attention_bias"),
    ("llama", {"mlp_bias": True}, "mlp_bias"),
    ("llama", {"quantization_config": {"quant_method": "gptq"}}, "quantised"),
    ("gemma3", {"final_logit_softcapping": 30.0}, "caps"),
    ("gemma3", {"use_bidirectional_attention": True}, "bidirectional"),
    ("mistral", {"layer_types": ["chunked_attention"] * 7}, "chunked_attention"),
]


@pytest.mark.parametrize(("architecture", "entries", "why"), REFUSED)
def test_what_would_be_computed_wrongly_is_refused(architecture: str, entries: Mapping[str, object], why: str) -> None:
    with pytest.raises(ModelFileError, match=why) as caught:
        shape_of(architecture, **entries)
    assert caught.value.code == "model_unsupported"


@pytest.mark.parametrize(
    "named", ["MixtralForCausalLM", "Gemma3ForConditionalGeneration", "LlamaForTokenClassification"]
)
def test_another_architecture_is_refused_by_its_name(tmp_path: Path, named: str) -> None:
    (tmp_path / "config.json").write_text(json.dumps({**SIZES, "architectures": [named]}))
    with pytest.raises(ModelFileError, match=named) as caught:
        open_model(tmp_path)
    assert caught.value.code == "model_unsupported"
