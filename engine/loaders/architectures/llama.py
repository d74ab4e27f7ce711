"""Llama (Touvron et al., 2023, arXiv 2302.13971) and what shares its files, SmolLM2 among them."""

from engine.loaders.architectures.config import decoder_of, need_activation
from engine.loaders.architectures.header import Header, decoder_in
from engine.loaders.metadata import Metadata
from engine.models.shape import ModelShape


def from_config(config: Metadata) -> ModelShape:
    """From a Hugging Face config. Raises ModelFileError."""
    need_activation(config, "hidden_act", "silu")
    return decoder_of(config)


def from_header(header: Header) -> ModelShape:
    """From a GGUF header, which calls Mistral a llama too. Raises ModelFileError."""
    return decoder_in(header, "llama")
