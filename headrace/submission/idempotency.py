"""What makes two submissions the same: the key's form and the body's hash. Knows no store."""

import hashlib
import re
from collections.abc import Mapping
from typing import Any

import orjson

from headrace.contract.errors import InvalidRequest

HEADER = "Idempotency-Key"
_KEY = re.compile(r"[!-~]{1,255}")


def check_key(key: str) -> str:
    """The key as it is; empty for none. Raises InvalidRequest unless it is up to 255 visible ASCII characters."""
    if key and not _KEY.fullmatch(key):
        raise InvalidRequest(f"`{HEADER}` must be 1 to 255 visible ASCII characters, without spaces.", param=HEADER)
    return key


def keys_for(key: str, jobs: int) -> tuple[str, ...]:
    """The keys of the jobs that one request makes: its own for the first, so that another body is found out at once,
    and for each further one a hash of it and its place. Empty for none."""
    if not key:
        return ("",) * jobs
    return (key, *(hashlib.sha256(f"{key} {place}".encode()).hexdigest() for place in range(1, jobs)))


def body_hash(body: Mapping[str, Any]) -> str:
    """sha256 of the JSON that the client sent, whatever its white space and the order of its fields.

    Of what was sent and not of what became of it: a seed that submit draws must not make a repeat another request.
    """
    return hashlib.sha256(orjson.dumps(body, option=orjson.OPT_SORT_KEYS)).hexdigest()
