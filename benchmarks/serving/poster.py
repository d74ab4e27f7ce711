"""A client that posts at a steady rate whatever the answers do, over connections that it keeps. Knows HTTP's frame.

Latency is told from the moment a request was due, so a server that falls behind is charged for everybody it keeps.
"""

import selectors
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

_CHUNK: Final = 65_536
_LENGTH: Final = b"content-length:"


@dataclass(frozen=True, slots=True)
class Answer:
    """Times in `time.monotonic`."""

    due: float
    came: float
    status: int
    body: bytes

    @property
    def seconds(self) -> float:
        return self.came - self.due


@dataclass(slots=True)
class Line:
    """One connection; `due` is None while nothing is asked on it."""

    connection: socket.socket
    due: float | None = None
    heard: bytes = b""

    def answer(self) -> tuple[int, bytes] | None:
        """Status and body once they are whole."""
        head, blank, body = self.heard.partition(b"\r\n\r\n")
        if not blank:
            return None
        at = head.lower().find(_LENGTH)
        length = int(head[at + len(_LENGTH) :].split(b"\r\n", 1)[0]) if at >= 0 else 0
        return (int(head[9:12]), body) if len(body) >= length else None


class Poster:
    """Not for two threads."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._selector = selectors.DefaultSelector()
        self._free: list[Line] = []
        self._open = 0
        self.answers: list[Answer] = []

    def post(self, request: Callable[[int], bytes], rate: float, seconds: float) -> None:
        """`rate` requests a second, evenly; `request` is given their numbers. Returns when all are answered."""
        began, sent, total = time.monotonic(), 0, int(rate * seconds)
        while sent < total or self._open > len(self._free):
            now = time.monotonic()
            while sent < total and began + sent / rate <= now:
                line = self._line()
                line.due = began + sent / rate
                line.connection.sendall(request(sent))
                sent += 1
            due_in = began + sent / rate - time.monotonic() if sent < total else 0.05
            self._hear(max(0.0, due_in))

    def close(self) -> None:
        for line in self._free:
            line.connection.close()
        self._selector.close()

    def _line(self) -> Line:
        if self._free:
            return self._free.pop()
        connection = socket.create_connection(("127.0.0.1", self._port))
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        line = Line(connection)
        self._selector.register(connection, selectors.EVENT_READ, line)
        self._open += 1
        return line

    def _hear(self, timeout_s: float) -> None:
        for key, _ in self._selector.select(timeout_s):
            line: Line = key.data
            data = line.connection.recv(_CHUNK)
            now = time.monotonic()
            if not data:
                raise ConnectionError("the server closed a connection in use")
            line.heard += data
            if (answer := line.answer()) is not None:
                assert line.due is not None
                self.answers.append(Answer(line.due, now, *answer))
                line.due, line.heard = None, b""
                self._free.append(line)
