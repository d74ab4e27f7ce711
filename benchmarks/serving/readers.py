"""Clients that follow many streams from one thread, and note when each event came. Knows sockets and blank lines.

As cheap as can be, since it runs beside what it measures: one epoll, no parser, events are counted by their ends.
"""

import selectors
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

_END: Final = b"\n\n"
_ACCEPTED: Final = b"HTTP/1.1 200"
_CHUNK: Final = 65_536
_AT_ONCE: Final = 10


@dataclass(slots=True)
class Followed:
    """One stream. `came` has the time of each event in `time.monotonic`; `head` the reply's head once it is whole."""

    connection: socket.socket
    head: bytes = b""
    came: list[float] = field(default_factory=list)
    closed: bool = False
    _headed: bool = False
    _half: bool = False  # what came last ended in the first of two line breaks

    def hear(self) -> None:
        try:
            data = self.connection.recv(_CHUNK)
        except BlockingIOError:
            return
        now = time.monotonic()
        if not data:
            self.closed = True
            return
        if not self._headed:
            self.head += data
            head, blank, data = self.head.partition(b"\r\n\r\n")
            if not blank:
                return
            self.head, self._headed = head, True
        count = data.count(_END)
        if self._half and data[:1] == b"\n":
            count += 1
        self._half = data[-1:] == b"\n" and data[-2:] != _END
        self.came.extend([now] * count)

    @property
    def job_id(self) -> str:
        """What the reply's `x-headrace-job` says; empty without one."""
        for line in self.head.split(b"\r\n"):
            name, _, value = line.partition(b":")
            if name.lower() == b"x-headrace-job":
                return value.strip().decode()
        return ""


class Readers:
    """All the streams of one process."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._selector = selectors.DefaultSelector()
        self.streams: list[Followed] = []

    def open(self, requests: Sequence[bytes], a_second: float = 200.0) -> None:
        """Send each on a connection of its own, and hear the beginnings of the replies meanwhile."""
        for start in range(0, len(requests), _AT_ONCE):
            for request in requests[start : start + _AT_ONCE]:
                connection = socket.create_connection(("127.0.0.1", self._port))
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                connection.sendall(request)
                connection.setblocking(False)
                stream = Followed(connection)
                self._selector.register(connection, selectors.EVENT_READ, stream)
                self.streams.append(stream)
            self.hear(_AT_ONCE / a_second)

    def hear(self, seconds: float) -> None:
        """Whatever comes in this time."""
        until = time.monotonic() + seconds
        self.hear_until(lambda: time.monotonic() > until)

    def hear_until(self, over: Callable[[], bool]) -> None:
        while not over():
            for key, _ in self._selector.select(0.05):
                stream: Followed = key.data
                stream.hear()
                if stream.closed:
                    self._selector.unregister(key.fileobj)

    def refusals(self) -> list[bytes]:
        """The heads of the replies that are there and not 200."""
        return [stream.head for stream in self.streams if stream.head and not stream.head.startswith(_ACCEPTED)]

    def close(self) -> None:
        for stream in self.streams:
            stream.connection.close()
        self._selector.close()


def get(path: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nhost: stand\r\naccept: text/event-stream\r\n\r\n".encode()


def post(path: str, body: bytes) -> bytes:
    head = (
        f"POST {path} HTTP/1.1\r\nhost: stand\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body
