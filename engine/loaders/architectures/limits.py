"""Limits that no real model comes near; they keep a damaged number from becoming an absurd allocation."""

from typing import Final

MAX_WIDTH: Final = 1 << 20
MAX_HEAD_DIM: Final = 1 << 12
MAX_LAYERS: Final = 1 << 12
MAX_CONTEXT: Final = 1 << 27
MAX_VOCABULARY: Final = 1 << 24
MAX_THETA: Final = 1e15
MAX_FACTOR: Final = 1e6
