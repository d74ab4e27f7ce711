"""One event of a stream as it came over the wire, checked. Knows the public JSON, neither streams nor connections."""

import json
from typing import get_args

from headrace.contract.errors import HeadraceError
from headrace.contract.events import Delta, Event, from_json

_TYPES = frozenset(cls.type for cls in get_args(Event))


def read_event(data: str) -> Event | None:
    """The event in one SSE message; None for a type that a newer server knows and this client does not.

    Raises HeadraceError for what no gateway says: it was damaged on its way.
    """
    try:
        said = json.loads(data)
        if said.get("type") not in _TYPES:
            return None
        event = from_json(said)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise HeadraceError(f"An event cannot be read: {type(error).__name__}: {error}.") from error
    if not _well_formed(event):
        raise HeadraceError(f"An event of type {event.type} has a field that is not of its type.")
    return event


def _well_formed(event: Event) -> bool:
    """Whether readers may count with it: JSON has words for more than its fields may be."""
    if not isinstance(event, Delta):
        return _all_whole(event.seq)
    texts = isinstance(event.text, str) and isinstance(event.finish_reason, str | None)
    return texts and _all_whole(event.seq, event.choice, event.offset, *event.token_ids)


def _all_whole(*numbers: object) -> bool:
    return all(type(number) is int and number >= 0 for number in numbers)
