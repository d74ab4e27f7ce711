"""Models in one GGUF file: its container, its types, and what it says of its model."""

from engine.loaders.gguf.file import GGUFFile
from engine.loaders.gguf.formats import FORMATS

__all__ = ["FORMATS", "GGUFFile"]
