"""Typed access to what a model file says of itself; turns every wrong or missing entry into an error that names it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from engine.errors import ModelFileError

MAX_TEMPLATE: Final = 1 << 20
"""Characters of a chat template."""
_LONGEST_LINE: Final = 200


class Metadata:
    """The entries of one GGUF header or JSON file. Each getter raises ModelFileError unless the entry is of its type.

    A JSON null counts as an entry that is not there.
    """

    def __init__(self, entries: Mapping[str, object], path: Path) -> None:
        self._entries = {key: value for key, value in entries.items() if value is not None}
        self.path = path

    def fail(self, why: str, *, unsupported: bool = False) -> ModelFileError:
        """The error for a contradiction that the caller found between entries."""
        if unsupported:
            next_step = "use a model of a supported kind"
            return ModelFileError(f"model file {self.path}", why, next_step, code="model_unsupported")
        return ModelFileError(f"damaged model file {self.path}", why, "download or convert the file again")

    def has(self, key: str) -> bool:
        return key in self._entries

    def raw(self, key: str) -> object:
        """Whatever is there, or None: for entries that come in several types."""
        return self._entries.get(key)

    def text(self, key: str, default: str | None = None) -> str:
        value = self._entries.get(key, default)
        if not isinstance(value, str):
            raise self.fail(f"{key!r} should be a string and is {kind_of(value)}")
        return value

    def line(self, key: str, default: str) -> str:
        """The start of a text that people will see: one line, of what can be printed."""
        seen = self.text(key, default)[:_LONGEST_LINE]
        return " ".join("".join(each if each.isprintable() else " " for each in seen).split())

    def template(self, key: str) -> str | None:
        """A chat template, or None where there is none."""
        if key not in self._entries:
            return None
        template = self.text(key)
        if len(template) > MAX_TEMPLATE:
            raise self.fail(f"{key!r} has {len(template)} characters, and at most {MAX_TEMPLATE} are read")
        return template

    def flag(self, key: str, default: bool) -> bool:
        value = self._entries.get(key, default)
        if not isinstance(value, bool):
            raise self.fail(f"{key!r} should be a truth value and is {kind_of(value)}")
        return value

    def size(self, key: str, limit: int, default: int | None = None, *, least: int = 1) -> int:
        """A whole number from `least` to `limit`."""
        value = self._entries.get(key, default)
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= limit:
            raise self.fail(f"{key!r} should be a whole number from {least} to {limit} and is {kind_of(value)}")
        return value

    def real(self, key: str, low: float, high: float, default: float | None = None) -> float:
        """A number from `low` to `high`."""
        value = self._entries.get(key, default)
        if not isinstance(value, int | float) or isinstance(value, bool) or not low <= value <= high:
            raise self.fail(f"{key!r} should be a number from {low:g} to {high:g} and is {kind_of(value)}")
        return float(value)

    def token_id(self, key: str, vocab_size: int) -> int | None:
        """A token id inside the vocabulary, or None where the file names none."""
        value = self._entries.get(key)
        return None if value is None else self._token_id(key, value, vocab_size)

    def token_ids(self, key: str, vocab_size: int) -> tuple[int, ...]:
        """One token id or a list of them; empty where the file names none."""
        value = self._entries.get(key, [])
        many = value if isinstance(value, list) else [value]
        return tuple(self._token_id(key, each, vocab_size) for each in many)

    def _token_id(self, key: str, value: object, vocab_size: int) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < vocab_size:
            raise self.fail(f"{key!r} is {kind_of(value)}, which is no id of a vocabulary of {vocab_size}")
        return value

    def texts(self, key: str) -> list[str]:
        value = self._entries.get(key)
        if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
            raise self.fail(f"{key!r} should be a list of strings and is {kind_of(value)}")
        return value

    def whole_numbers(self, key: str, count: int) -> list[int]:
        """Exactly `count` of them."""
        numbers: list[int] = self._array(key, np.integer, f"{count} whole numbers", count).tolist()
        return numbers

    def reals(self, key: str, count: int) -> list[float]:
        """Exactly `count` of them, each a number."""
        found = self._array(key, np.floating, f"{count} numbers", count)
        if np.isnan(found).any():
            raise self.fail(f"{key!r} holds what is not a number")
        numbers: list[float] = found.tolist()
        return numbers

    def _array(self, key: str, kind: type[Any], what: str, count: int) -> NDArray[Any]:
        value = self._entries.get(key)
        if not isinstance(value, np.ndarray) or not np.issubdtype(value.dtype, kind) or len(value) != count:
            raise self.fail(f"{key!r} should be a list of {what} and is {kind_of(value)}")
        return value

    def section(self, key: str) -> Self | None:
        """A JSON object within this one, or None where there is none."""
        value = self._entries.get(key)
        if value is None:
            return None
        if not isinstance(value, dict):
            raise self.fail(f"{key!r} should be an object and is {kind_of(value)}")
        return type(self)(value, self.path)


def kind_of(value: object) -> str:
    """What a value is, for a message: short, and on one line."""
    if value is None:
        return "missing"
    if isinstance(value, list | dict | np.ndarray):
        return f"a collection of {len(value)}"
    if isinstance(value, int) and value.bit_length() > 256:
        return f"a number of {value.bit_length()} bits"
    return repr(value[:80] if isinstance(value, str) else value)[:80]
