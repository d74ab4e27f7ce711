"""The response that sends a stream of frames. Knows when to stop sending, not what is in a frame."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import AsyncExitStack, aclosing, suppress

import structlog
from fastapi import Response
from starlette.types import Message, Receive, Scope, Send

from gateway import sse
from gateway.errors import ClientGone
from gateway.patience import patience
from gateway.presence import Presence
from headrace.contract.errors import HeadraceError
from headrace.openai.projection import error_body

_log = structlog.get_logger(__name__)

SEND_TIMEOUT_S = 60.0
"""A client that reads nothing for so long is taken for gone."""


class EventStream(Response):
    """Sends frames until they end, the client leaves or the gateway stops.

    `frames` may raise HeadraceError: it becomes the last frame, made by `last_words`. `stack` holds what the frames are
    made of and is closed in any case: whoever must know that this ended, however it did, is called from there.
    """

    def __init__(
        self,
        frames: AsyncGenerator[bytes, None],
        *,
        stack: AsyncExitStack,
        closing: asyncio.Event,
        last_words: Callable[[HeadraceError], bytes],
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(None, 200, {**sse.HEADERS, **(headers or {})})
        del self.headers["content-length"]
        self._frames = frames
        self._stack = stack
        self._closing = closing
        self._last_words = last_words

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with self._stack:
            with suppress(ClientGone, OSError):
                await self._send(send, {"type": "http.response.start", "status": 200, "headers": self.raw_headers})
                await self._pump(Presence(receive, self._closing), send)
                await self._send(send, {"type": "http.response.body", "body": b""})

    async def _pump(self, presence: Presence, send: Send) -> None:
        try:
            await presence.during(self._send_frames(send))
        except HeadraceError as error:
            await self._say(send, error)
        except (ClientGone, OSError):
            raise
        except Exception:  # noqa: BLE001
            # The status is long sent, so all that is left is to tell the client inside the stream.
            _log.exception("gateway.stream_failed")
            await self._say(send, HeadraceError("Something went wrong here while streaming."))

    async def _send_frames(self, send: Send) -> None:
        """Waits for nobody but a client whose connection is full, and for that one only so long."""
        async with aclosing(self._frames) as frames, patience(SEND_TIMEOUT_S) as watch:
            async for data in frames:
                watch.begin()
                await send({"type": "http.response.body", "body": data, "more_body": True})
                watch.end()

    async def _say(self, send: Send, error: HeadraceError) -> None:
        await self._send(send, {"type": "http.response.body", "body": self._last_words(error), "more_body": True})

    async def _send(self, send: Send, message: Message) -> None:
        async with patience(SEND_TIMEOUT_S) as watch:
            watch.begin()
            await send(message)


def openai_last_words(error: HeadraceError) -> bytes:
    """A frame without a name, which makes the official client raise APIError with type and code."""
    return sse.frame(error_body(error))
