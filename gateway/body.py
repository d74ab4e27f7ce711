"""Reads a JSON body within limits of size and time. Knows bytes and JSON, not what the fields mean."""

import asyncio
import hashlib
from dataclasses import dataclass
from typing import Any

import orjson
from fastapi import Request
from starlette.requests import ClientDisconnect

from gateway.errors import BodyTimeout, ClientGone
from headrace.contract.errors import InvalidRequest, PayloadTooLarge


@dataclass(frozen=True, slots=True)
class JsonBody:
    """A parsed object and the hash by which an idempotency key knows it again (key order and spaces do not count)."""

    fields: dict[str, Any]
    hash: str


async def read_json(request: Request, max_bytes: int, timeout_s: float) -> JsonBody:
    """The request's JSON object.

    Raises PayloadTooLarge as soon as the limit is passed (the rest is never kept), BodyTimeout, InvalidRequest,
    or ClientGone.
    """
    content_type = request.headers.get("content-type", "application/json").partition(";")[0].strip().lower()
    if content_type != "application/json" and not content_type.endswith("+json"):
        raise InvalidRequest(
            f"The body is sent as {content_type[:80]!r}.", next_step="Send JSON with `Content-Type: application/json`."
        )
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise InvalidRequest("Compressed bodies are not read here.", next_step="Send the JSON as it is.")
    try:
        async with asyncio.timeout(timeout_s):
            raw = await _read(request, max_bytes)
    except TimeoutError:
        raise BodyTimeout(f"The body was not complete after {timeout_s:g} s.") from None
    except ClientDisconnect:
        raise ClientGone from None
    return parse_json(raw)


def parse_json(raw: bytes) -> JsonBody:
    """Parse one JSON object; NaN, Infinity, other encodings than UTF-8 and very deep nesting are refused."""
    try:
        fields = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise InvalidRequest(f"The body is not valid JSON in UTF-8: {error}") from None
    if not isinstance(fields, dict):
        raise InvalidRequest(f"The body must be a JSON object, not {_kind(fields)}.")
    try:
        canonical = orjson.dumps(fields, option=orjson.OPT_SORT_KEYS)
    except orjson.JSONEncodeError:
        raise InvalidRequest("The body is nested too deeply.") from None
    return JsonBody(fields, hashlib.sha256(canonical).hexdigest())


async def _read(request: Request, max_bytes: int) -> bytes:
    too_large = PayloadTooLarge(f"The body is larger than {max_bytes} bytes.", next_step="Split the work into jobs.")
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared) > max_bytes:
        raise too_large
    chunks = bytearray()
    async for chunk in request.stream():
        chunks += chunk
        if len(chunks) > max_bytes:
            raise too_large
    return bytes(chunks)


def _kind(value: object) -> str:
    if value is None:
        return "null"
    return {bool: "a boolean", int: "a number", float: "a number", str: "a string"}.get(type(value), "an array")
