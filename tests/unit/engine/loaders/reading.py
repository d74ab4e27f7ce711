"""Reads a model as an engine would, all of it, and says what came of that: for tests of damaged files."""

import tracemalloc
from pathlib import Path

from engine import ModelFileError
from engine.loaders import open_model
from engine.loaders.inventory import model_weights

# A header of 20 kB may well claim terabytes; what is really taken stays a small multiple of the file.
MEMORY_LIMIT = 8 << 20
CODES = ("model_file_missing", "model_file_corrupt", "model_unsupported")


def read_all(path: Path) -> None:
    """Description and every weight. Raises ModelFileError."""
    with open_model(path) as opened:
        opened.describe()
        weights = opened.weights
        for role, layer, shape in model_weights(opened.shape, weights.has("output")):
            weights.take(role, shape, layer)


def survives(path: Path) -> bool:
    """Whether the model is taken, not refused. No error but ModelFileError may come, with a code and what it is about,
    and little memory be used."""
    refusal: ModelFileError | None = None
    tracemalloc.start()
    try:
        read_all(path)
    except ModelFileError as error:
        refusal = error
    finally:
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert peak < MEMORY_LIMIT
    assert refusal is None or (str(path.parent) in str(refusal) and refusal.code in CODES)
    return refusal is None
