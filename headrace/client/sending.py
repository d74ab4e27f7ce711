"""What a client sends, as bytes and as a query. Knows JSON and URLs, not what is asked."""

import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

from headrace.contract.errors import InvalidRequest


def encoded(fields: Mapping[str, Any]) -> bytes:
    """As a JSON object. Raises InvalidRequest for a field that JSON has no word for: NaN, half of a surrogate pair."""
    try:
        return _json(fields)
    except (TypeError, ValueError, RecursionError):
        raise _refusal(fields) from None


def query_string(fields: Mapping[str, Any]) -> str:
    """As a URL has it behind its `?`. Raises InvalidRequest for a text with half of a surrogate pair."""
    try:
        return urlencode(fields)
    except UnicodeEncodeError:
        raise _refusal(fields) from None


def _refusal(fields: Mapping[str, Any]) -> InvalidRequest:
    """By the first field that cannot be sent."""
    for name, value in fields.items():
        try:
            _json({name: value})
        except (TypeError, ValueError, RecursionError) as error:
            shown = ascii(name)[1:-1]
            return InvalidRequest(f"`{shown}` cannot be sent: {error}.", param=shown)
    return InvalidRequest("The request is too deep to be sent.")


def _json(fields: Mapping[str, Any]) -> bytes:
    return json.dumps(fields, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
