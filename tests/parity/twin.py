"""Puts the weights that our loader hands out into the transformers model of the same shape.

So the decoders are compared with each other, on the same numbers, whatever format they were read from.
"""

from pathlib import Path
from typing import Any

import torch
import transformers

from engine.loaders.architectures import IN_CONFIG
from engine.loaders.architectures.config import FULL, SLIDING
from engine.loaders.checkpoint import Checkpoint
from engine.loaders.inventory import model_weights, name_of
from engine.loaders.metadata import Metadata
from engine.models.shape import ModelShape, RotaryShape


def twin(checkpoint: Checkpoint, shape: ModelShape) -> Any:
    """The transformers model, in float32 and for evaluation. Raises ValueError for a shape that has none here."""
    tied = not checkpoint.has("output")
    kind, config = _kind(shape, tied)
    layout = IN_CONFIG[kind.__name__].layout
    weights = {}
    for role, layer, extents in model_weights(shape, own_output=not tied):
        values = torch.from_numpy(checkpoint.take(role, extents, layer))
        name = name_of(layout.names, role, layer)
        weights[name] = values - layout.norm_offset if role.endswith("norm") else values
    return kind.from_pretrained(None, config=config, state_dict=weights, dtype=torch.float32).eval()


def _kind(shape: ModelShape, tied: bool) -> tuple[Any, Any]:
    """The class and the configuration that have the shape's options. Raises ValueError where none here has them all."""
    options: dict[str, Any] = {
        "vocab_size": shape.vocab_size,
        "hidden_size": shape.hidden_size,
        "intermediate_size": shape.ffn_size,
        "num_hidden_layers": shape.num_layers,
        "num_attention_heads": shape.num_heads,
        "num_key_value_heads": shape.num_kv_heads,
        "head_dim": shape.head_dim,
        "max_position_embeddings": shape.context_length,
        "rms_norm_eps": shape.rms_eps,
        "tie_word_embeddings": tied,
    }
    windows = {window for window in shape.layer_windows if window is not None}
    if windows:
        options["layer_types"] = [FULL if window is None else SLIDING for window in shape.layer_windows]
        options["sliding_window"] = windows.pop()
    kind, config = _like(shape, options)
    if IN_CONFIG[kind.__name__].shape(Metadata(config.to_dict(), Path("the twin's config"))) != shape:
        raise ValueError(f"no twin here has all options of {shape}")
    return kind, config


def _like(shape: ModelShape, options: dict[str, Any]) -> tuple[Any, Any]:
    """The nearest one, which may lack an option of the shape."""
    if shape.post_norms:
        options |= {
            "query_pre_attn_scalar": round(shape.score_scale**-2),
            "rope_parameters": {FULL: _rope(shape.rotaries[0]), SLIDING: _rope(shape.rotaries[-1])},
        }
        return transformers.Gemma3ForCausalLM, transformers.Gemma3TextConfig(**options)
    options["rope_parameters"] = _rope(shape.rotaries[0])
    windowed = "sliding_window" in options
    if shape.qkv_bias:
        return transformers.Qwen2ForCausalLM, transformers.Qwen2Config(**options, use_sliding_window=windowed)
    if shape.qk_norm:
        return transformers.Qwen3ForCausalLM, transformers.Qwen3Config(**options, use_sliding_window=windowed)
    if windowed:
        return transformers.MistralForCausalLM, transformers.MistralConfig(**options)
    return transformers.LlamaForCausalLM, transformers.LlamaConfig(**options)


def _rope(rotary: RotaryShape) -> dict[str, Any]:
    if rotary.factors is None:
        return {"rope_type": "default", "rope_theta": rotary.theta}
    if len(set(rotary.factors)) > 1:
        raise ValueError("of scaled rotations only linear ones have a twin here")
    return {"rope_type": "linear", "rope_theta": rotary.theta, "factor": rotary.factors[0]}
