"""Runs the app under uvicorn: the port, the signals, the way out. Knows sockets, not routes."""

import asyncio
import errno
import signal
import socket
from types import FrameType

import uvicorn
from fastapi import FastAPI

from headrace.contract.errors import SetupError

GRACE_S = 3
"""How long open replies may take to end once asked to stop; the process is gone a moment later."""

KEEP_ALIVE_S = 75
"""Longer than clients keep an idle connection (httpx: 5 s), so that none is closed under a request just sent."""

MOST_SAID = 65_536
"""Bytes of one message that a client may send through a WebSocket; a larger one closes it with 1009."""

WS_PING_S = 20.0
"""How often a WebSocket is asked whether its client is there, and how long for the answer."""


class Server(uvicorn.Server):
    """Tells open streams to end before uvicorn waits for them, and exits 0 when it was asked to stop."""

    def __init__(self, app: FastAPI, closing: asyncio.Event) -> None:
        config = uvicorn.Config(
            app,
            http="httptools",
            ws="websockets-sansio",
            ws_max_size=MOST_SAID,
            ws_ping_interval=WS_PING_S,
            ws_ping_timeout=WS_PING_S,
            ws_per_message_deflate=False,
            lifespan="on",
            access_log=False,
            log_config=None,
            log_level="warning",
            server_header=False,
            timeout_keep_alive=KEEP_ALIVE_S,
            timeout_graceful_shutdown=GRACE_S,
        )
        super().__init__(config)
        self._closing = closing

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        # uvicorn's own handler raises the signal again at the end, and a clean stop would look like a death.
        self.force_exit = self.should_exit and sig == signal.SIGINT
        self.should_exit = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._closing.set()
        await super().shutdown(sockets)


def bind(host: str, port: int) -> socket.socket:
    """A listening-to-be socket. Raises SetupError with one line that says what to do."""
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[
            0
        ]
    except socket.gaierror as error:
        raise SetupError(f"The host {host!r} cannot be resolved: {error.strerror}.", param="gateway.host") from None
    listener = socket.socket(family, kind)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(address)
        listener.listen(2048)
    except OSError as error:
        listener.close()
        raise SetupError(_why(host, port, error), param="gateway.port", next_step=_WHAT_NEXT) from None
    listener.setblocking(False)
    return listener


_WHAT_NEXT = "Choose another with --port (or HEADRACE_GATEWAY__PORT); 0 takes a free one."


def _why(host: str, port: int, error: OSError) -> str:
    reason = "is in use" if error.errno == errno.EADDRINUSE else f"cannot be opened ({error.strerror})"
    return f"Port {port} on {host} {reason}."
