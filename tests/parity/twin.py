"""Puts the weights of a Llama or a Gemma 3 that our loader hands out into the transformers model of the same shape.

So the decoders are compared with each other, on the same numbers, whatever format they were read from.
"""

from typing import Any

import torch
import transformers

from engine.loaders.architectures import IN_CONFIG
from engine.loaders.checkpoint import Checkpoint
from engine.loaders.inventory import model_weights, name_of
from engine.models.shape import ModelShape, RotaryShape


def twin(checkpoint: Checkpoint, shape: ModelShape) -> Any:
    """The transformers model, in float32 and for evaluation."""
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
    """The class and the configuration that have the shape's options."""
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
    if shape.post_norms:
        local = next(layer for layer, window in enumerate(shape.layer_windows) if window is not None)
        everywhere = shape.layer_windows.index(None)
        options |= {
            "layer_types": ["full_attention" if w is None else "sliding_attention" for w in shape.layer_windows],
            "sliding_window": shape.layer_windows[local],
            "query_pre_attn_scalar": round(shape.score_scale**-2),
            "rope_parameters": {
                "sliding_attention": _rope(shape.rotaries[shape.layer_rotary[local]]),
                "full_attention": _rope(shape.rotaries[shape.layer_rotary[everywhere]]),
            },
        }
        return transformers.Gemma3ForCausalLM, transformers.Gemma3TextConfig(**options)
    options["rope_parameters"] = _rope(shape.rotaries[0])
    return transformers.LlamaForCausalLM, transformers.LlamaConfig(**options)


def _rope(rotary: RotaryShape) -> dict[str, Any]:
    if rotary.factors is None:
        return {"rope_type": "default", "rope_theta": rotary.theta}
    assert len(set(rotary.factors)) == 1, "only linear scaling has a twin here"
    return {"rope_type": "linear", "rope_theta": rotary.theta, "factor": rotary.factors[0]}
