"""Mistral (Jiang et al., 2023, arXiv 2310.06825): a Llama whose layers may all see a window only."""

from dataclasses import replace

from engine.loaders.architectures.config import FULL, SLIDING, decoder_of, layer_types_of, need_activation, windows_of
from engine.loaders.metadata import Metadata
from engine.models.shape import ModelShape


def from_config(config: Metadata) -> ModelShape:
    """From a Hugging Face config; no window where 'sliding_window' is null. Raises ModelFileError."""
    need_activation(config, "hidden_act", "silu")
    shape = decoder_of(config, kv_heads=8)
    everywhere = [SLIDING if config.has("sliding_window") else FULL] * shape.num_layers
    types = layer_types_of(config, shape.num_layers) or everywhere
    return replace(shape, layer_windows=windows_of(config, types))
