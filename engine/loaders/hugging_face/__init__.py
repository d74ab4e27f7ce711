"""Models in a Hugging Face folder: safetensors, config, tokenizer."""

from engine.loaders.hugging_face.folder import ModelFolder

__all__ = ["ModelFolder"]
