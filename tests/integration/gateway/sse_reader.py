"""Reads our event streams byte by byte, as a client that may be cut anywhere. Knows SSE's fields, not their meaning."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import httpx2


@dataclass(frozen=True, slots=True)
class Message:
    """One event: its cursor, its name and its JSON."""

    id: str
    event: str
    data: dict[str, Any]


def messages(chunks: Iterable[bytes]) -> Iterator[Message]:
    """Whole messages only: what a cut left unfinished is dropped, as browsers do."""
    buffer = b""
    for chunk in chunks:
        buffer += chunk
        *blocks, buffer = buffer.split(b"\n\n")
        for block in blocks:
            lines = [line for line in block.decode().split("\n") if not line.startswith(":")]
            fields = dict(line.split(": ", 1) for line in lines)
            yield Message(fields.get("id", ""), fields.get("event", ""), json.loads(fields["data"]))


def follow(http: httpx2.Client, job_id: str, cursor: str = "") -> list[Message]:
    """All messages from the cursor on, to the end of the stream."""
    return list(each(http, job_id, cursor))


def each(http: httpx2.Client, job_id: str, cursor: str = "") -> Iterator[Message]:
    """The same as they come."""
    headers = {"Last-Event-ID": cursor} if cursor else {}
    with http.stream("GET", f"/v1/jobs/{job_id}/events", headers=headers) as reply:
        assert reply.status_code == 200, reply.read()
        yield from messages(reply.iter_raw())


def text_of(found: Iterable[Message]) -> str:
    return "".join(message.data.get("text", "") for message in found)


def ids_in(found: Iterable[Message]) -> list[int]:
    return [token for message in found for token in message.data.get("token_ids", [])]
