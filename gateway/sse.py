"""Our Server-Sent Events encoder. Knows bytes and field names, not what an event means.

Two shapes break the official OpenAI client and are therefore never written here: a keep-alive that is followed by a
blank line (an empty event to a parser that has seen an `id:`), and a bare `retry:`.
"""

from typing import Any

import orjson

CONTENT_TYPE = "text/event-stream; charset=utf-8"

HEADERS = {
    "content-type": CONTENT_TYPE,
    "cache-control": "no-cache, no-transform",
    # nginx would otherwise hold tokens back until a buffer is full.
    "x-accel-buffering": "no",
}

PING = b": ping\n"
"""The keep-alive: one comment line, no blank line after it."""

DONE = b"data: [DONE]\n\n"


def frame(data: Any, *, event: str = "", event_id: str = "") -> bytes:
    """One event with a JSON body. JSON holds no raw line break, so one `data:` line is always enough.

    `event` and `event_id` are ours and never hold a line break either; empty means the field is left out.
    """
    lines = []
    if event_id:
        lines.append(b"id: " + event_id.encode() + b"\n")
    if event:
        lines.append(b"event: " + event.encode() + b"\n")
    return b"".join([*lines, b"data: ", orjson.dumps(data), b"\n\n"])
