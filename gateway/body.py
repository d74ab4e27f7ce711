"""Reads a JSON body within limits of size and time. Knows bytes, not what the fields mean."""

import asyncio
from typing import Any

from fastapi import Request
from starlette.requests import ClientDisconnect

from gateway.errors import BodyTimeout, ClientGone
from headrace.contract.errors import InvalidRequest, PayloadTooLarge
from headrace.openai.schema import read_json as read_object


async def read_json(request: Request, max_bytes: int, timeout_s: float) -> dict[str, Any]:
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
    return read_object(raw)


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
