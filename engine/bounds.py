"""Holds what a caller gave to its kind and its bounds, one value at a time; knows no request and no model."""

import operator
from collections.abc import Iterable
from typing import Final

from engine.errors import EngineError, EngineRequestError

_SHOWN: Final = 80


def need_kind(name: str, value: object, kind: type) -> None:
    """Raises EngineRequestError for all but one of this kind."""
    if not isinstance(value, kind):
        raise EngineRequestError(f"{name} must be of the kind {kind.__name__}, not {shown(value)}")


def need_number(
    name: str, value: object, low: float, high: float, refusal: type[EngineError] = EngineRequestError
) -> None:
    """Raises `refusal` for all but a number from `low` to `high`."""
    if not isinstance(value, int | float) or not low <= value <= high:  # NaN is never within
        raise refusal(f"{name} must be a number from {low:g} to {high:g}, not {shown(value)}")


def need_whole(name: str, value: object, low: int, high: int, refusal: type[EngineError] = EngineRequestError) -> None:
    """Raises `refusal` for all but a whole number from `low` to `high`."""
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise refusal(f"{name} must be a whole number from {low} to {high}, not {shown(value)}")


def whole_ids(name: str, ids: object) -> list[int]:
    """Token ids as Python's own integers, whichever sequence or array they came in. Raises EngineRequestError."""
    try:
        if isinstance(ids, Iterable):
            return list(map(operator.index, ids))
    except TypeError:  # text, fractions and nothing have no index
        pass
    raise EngineRequestError(f"{name} must be token ids, and is {shown(ids)}")


def shown(value: object) -> str:
    """A value for a message: short, and never an error of its own."""
    try:
        return repr(value)[:_SHOWN]
    except ValueError:  # Python writes no number of more than 4,300 digits
        return "a number of very many digits"
