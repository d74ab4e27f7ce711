"""Gemma 3, text only (arXiv 2503.19786): norms around everything, and one layer in six that sees more than a window.

The layers with a window rotate by a base of their own; scaling for longer texts is for the others alone.
"""

import math
from dataclasses import replace
from typing import Final

from engine.loaders.architectures.config import FULL, SLIDING, decoder_of, layer_types_of, need_activation, windows_of
from engine.loaders.architectures.config import TENSOR_NAMES as COMMON_NAMES
from engine.loaders.architectures.header import Header, decoder_in
from engine.loaders.architectures.limits import MAX_CONTEXT, MAX_LAYERS, MAX_THETA, MAX_WIDTH
from engine.loaders.architectures.rotary import DEFAULT_THETA, rotary_of
from engine.loaders.metadata import Metadata
from engine.models.shape import ModelShape, RotaryShape

TENSOR_NAMES: Final = COMMON_NAMES | {
    "q_norm": "model.layers.{layer}.self_attn.q_norm.weight",
    "k_norm": "model.layers.{layer}.self_attn.k_norm.weight",
    "attention_post_norm": "model.layers.{layer}.post_attention_layernorm.weight",
    "mlp_norm": "model.layers.{layer}.pre_feedforward_layernorm.weight",
    "mlp_post_norm": "model.layers.{layer}.post_feedforward_layernorm.weight",
}
_PERIOD: Final = 6
_LAYERS_OF_27B: Final = 62  # its heads are wider than hidden / heads, by which its scores are scaled


def from_config(config: Metadata) -> ModelShape:
    """From a Hugging Face config. Raises ModelFileError."""
    need_activation(config, "hidden_activation", "gelu_pytorch_tanh")
    shape = decoder_of(config, head_dim=256, kv_heads=1)
    types = layer_types_of(config, shape.num_layers) or _pattern(config, shape.num_layers)
    divisor = config.real("query_pre_attn_scalar", 1e-3, float(MAX_WIDTH), default=256.0)
    return _gemma3(
        shape,
        local=_local_rotary(config, shape),
        types=types,
        windows=windows_of(config, types),
        attention_scale=divisor**-0.5,
    )


def from_header(header: Header) -> ModelShape:
    """From a GGUF header, which tells neither pattern nor scale of the scores: they follow from the model's size.

    Raises ModelFileError.
    """
    metadata = header.metadata
    shape = decoder_in(header, "gemma3")
    window = metadata.size("gemma3.attention.sliding_window", MAX_CONTEXT)
    theta = metadata.real("gemma3.rope.freq_base_swa", 1.0, MAX_THETA, default=DEFAULT_THETA)
    types = _types(metadata.size("gemma3.attention.sliding_window_pattern", MAX_LAYERS, _PERIOD), shape.num_layers)
    is_27b = shape.num_layers == _LAYERS_OF_27B
    divisor = shape.hidden_size / shape.num_heads if is_27b else shape.head_dim
    return _gemma3(
        shape,
        local=RotaryShape(theta),
        types=types,
        windows=tuple(window if kind == SLIDING else None for kind in types),
        attention_scale=divisor**-0.5,
    )


def _gemma3(
    shape: ModelShape,
    *,
    local: RotaryShape,
    types: list[str],
    windows: tuple[int | None, ...],
    attention_scale: float,
) -> ModelShape:
    return replace(
        shape,
        rotaries=(*shape.rotaries, local),
        layer_rotary=tuple(1 if kind == SLIDING else 0 for kind in types),
        layer_windows=windows,
        embedding_scale=math.sqrt(shape.hidden_size),
        qk_norm=True,
        attention_scale=attention_scale,
        post_norms=True,
        activation="gelu_tanh",
    )


def _pattern(config: Metadata, layers: int) -> list[str]:
    period = config.size("_sliding_window_pattern", MAX_LAYERS, default=_PERIOD)
    return _types(config.size("sliding_window_pattern", MAX_LAYERS, default=period), layers)


def _types(period: int, layers: int) -> list[str]:
    return [SLIDING if (layer + 1) % period else FULL for layer in range(layers)]


def _local_rotary(config: Metadata, shape: ModelShape) -> RotaryShape:
    parameters = config.section("rope_parameters")
    if parameters is not None and parameters.has(SLIDING):
        return rotary_of(config, shape.head_dim, shape.context_length, layer_type=SLIDING)
    return RotaryShape(config.real("rope_local_base_freq", 1.0, MAX_THETA, default=DEFAULT_THETA))
