"""Typed access to a GGUF file's metadata; turns every wrong or missing entry into a ModelFileError that names it."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from engine.errors import ModelFileError
from engine.loaders.gguf import MetaValue


class Metadata:
    """The entries of one file. Each getter raises ModelFileError unless the entry is there and of its type."""

    def __init__(self, entries: Mapping[str, MetaValue], path: Path) -> None:
        self._entries = entries
        self._path = path

    def fail(self, why: str, *, unsupported: bool = False) -> ModelFileError:
        """The error for a contradiction that the caller found between entries."""
        if unsupported:
            next_step = "use a model of a supported kind; docs/recipes says how to add one"
            return ModelFileError(f"model file {self._path}", why, next_step, code="model_unsupported")
        return ModelFileError(f"damaged model file {self._path}", why, "download or convert the file again")

    def text(self, key: str) -> str:
        value = self._entries.get(key)
        if not isinstance(value, str):
            raise self.fail(f"{key!r} should be a string and is {_kind(value)}")
        return value

    def text_or_none(self, key: str) -> str | None:
        return self.text(key) if key in self._entries else None

    def flag(self, key: str, default: bool) -> bool:
        value = self._entries.get(key, default)
        if not isinstance(value, bool):
            raise self.fail(f"{key!r} should be a truth value and is {_kind(value)}")
        return value

    def size(self, key: str, limit: int, default: int | None = None) -> int:
        """A whole number from 1 to `limit`."""
        value = self._entries.get(key, default)
        if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= limit:
            raise self.fail(f"{key!r} should be a whole number from 1 to {limit} and is {_kind(value)}")
        return value

    def real(self, key: str, low: float, high: float, default: float | None = None) -> float:
        """A number from `low` to `high`."""
        value = self._entries.get(key, default)
        if not isinstance(value, int | float) or isinstance(value, bool) or not low <= value <= high:
            raise self.fail(f"{key!r} should be a number from {low:g} to {high:g} and is {_kind(value)}")
        return float(value)

    def token_id(self, key: str, vocab_size: int) -> int | None:
        """A token id inside the vocabulary, or None where the file names none."""
        value = self._entries.get(key)
        if value is None:
            return None
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < vocab_size:
            raise self.fail(f"{key!r} is {_kind(value)}, which is no id of a vocabulary of {vocab_size}")
        return value

    def texts(self, key: str) -> list[str]:
        value = self._entries.get(key)
        if not isinstance(value, list):
            raise self.fail(f"{key!r} should be a list of strings and is {_kind(value)}")
        return value

    def whole_numbers(self, key: str) -> list[int]:
        value = self._entries.get(key)
        if not isinstance(value, np.ndarray) or not np.issubdtype(value.dtype, np.integer):
            raise self.fail(f"{key!r} should be a list of whole numbers and is {_kind(value)}")
        return [int(number) for number in value]

    def has(self, key: str) -> bool:
        return key in self._entries


def _kind(value: MetaValue | None) -> str:
    if value is None:
        return "missing"
    if isinstance(value, list | np.ndarray):
        return f"a list of {len(value)}"
    return repr(value)[:80]
