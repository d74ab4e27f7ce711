"""Qwen2 and Qwen2.5 (arXiv 2407.10671): biases on query, key and value, and windows on late layers where asked for."""

from dataclasses import replace
from typing import Final

from engine.loaders.architectures.config import FULL, SLIDING, decoder_of, layer_types_of, need_activation, windows_of
from engine.loaders.architectures.config import TENSOR_NAMES as COMMON_NAMES
from engine.loaders.architectures.header import Header, decoder_in
from engine.loaders.architectures.limits import MAX_LAYERS
from engine.loaders.metadata import Metadata
from engine.models.shape import ModelShape

TENSOR_NAMES: Final = COMMON_NAMES | {
    "q_bias": "model.layers.{layer}.self_attn.q_proj.bias",
    "k_bias": "model.layers.{layer}.self_attn.k_proj.bias",
    "v_bias": "model.layers.{layer}.self_attn.v_proj.bias",
}


def from_config(config: Metadata) -> ModelShape:
    """From a Hugging Face config. Raises ModelFileError."""
    need_activation(config, "hidden_act", "silu")
    shape = decoder_of(config)
    return replace(shape, qkv_bias=True, layer_windows=qwen_windows(config, shape.num_layers))


def from_header(header: Header) -> ModelShape:
    """From a GGUF header. Raises ModelFileError."""
    return replace(decoder_in(header, "qwen2"), qkv_bias=True)


def qwen_windows(config: Metadata, layers: int) -> tuple[int | None, ...]:
    """Layers from 'max_window_layers' on see a window, if 'use_sliding_window' is on at all."""
    if not config.flag("use_sliding_window", False):
        return (None,) * layers
    types = layer_types_of(config, layers)
    if types is None:
        first = min(layers, config.size("max_window_layers", MAX_LAYERS, default=28))
        types = [FULL] * first + [SLIDING] * (layers - first)
    return windows_of(config, types)
