"""Qwen3, dense (arXiv 2505.09388): each query and key head is normed before it is rotated, and no biases."""

from dataclasses import replace
from typing import Final

from engine.loaders.architectures.config import TENSOR_NAMES as COMMON_NAMES
from engine.loaders.architectures.config import decoder_of, need_activation
from engine.loaders.architectures.header import Header, decoder_in
from engine.loaders.architectures.qwen2 import qwen_windows
from engine.loaders.metadata import Metadata
from engine.models.shape import ModelShape

TENSOR_NAMES: Final = COMMON_NAMES | {
    "q_norm": "model.layers.{layer}.self_attn.q_norm.weight",
    "k_norm": "model.layers.{layer}.self_attn.k_norm.weight",
}


def from_config(config: Metadata) -> ModelShape:
    """From a Hugging Face config. Raises ModelFileError."""
    need_activation(config, "hidden_act", "silu")
    shape = decoder_of(config, head_dim=128)
    return replace(shape, qk_norm=True, layer_windows=qwen_windows(config, shape.num_layers))


def from_header(header: Header) -> ModelShape:
    """From a GGUF header. Raises ModelFileError."""
    return replace(decoder_in(header, "qwen3"), qk_norm=True)
