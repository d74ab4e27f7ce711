"""Model files in: `describe` says what they are, `open_model` gives their weights; GGUF or a Hugging Face folder."""

from engine.loaders.description import ModelDescription
from engine.loaders.opening import describe, open_model

__all__ = ["ModelDescription", "describe", "open_model"]
