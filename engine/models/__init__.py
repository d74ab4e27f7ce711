"""Architectures by name. To add one: write `engine/models/<name>.py` and one line in `MODELS`."""

from typing import Final

# Strings, not classes: describing a file must not import every architecture.
MODELS: Final[dict[str, str]] = {"llama": "engine.models.llama.Llama"}
