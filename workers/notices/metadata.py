"""One request to a metadata server: plain HTTP on the link, no proxy, a limit on time and size. Knows no cloud."""

import http.client
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from headrace.contract.errors import SetupError
from workers.notices.base import NoAnswer

LINK_LOCAL = "http://169.254.169.254"
"""Where the metadata servers of all clouds are (RFC 3927)."""

TIMEOUT_S = 1.0
_MOST_BYTES = 16_384


@dataclass(frozen=True, slots=True)
class Answer:
    """`headers` are by their names in small letters."""

    status: int
    headers: Mapping[str, str]
    text: str


class _Line(socket.socket):
    """Reads until a time and not beyond it: a socket's own timeout begins anew with every byte that drips in."""

    give_up_at = 0.0

    def recv_into(self, *buffer: Any) -> int:
        left_s = self.give_up_at - time.monotonic()
        if left_s <= 0:
            raise TimeoutError("timed out")
        self.settimeout(left_s)
        return super().recv_into(*buffer)


class MetadataServer:
    """Each call is a connection of its own: they are seconds apart. Raises SetupError for what is no address."""

    def __init__(self, url: str = "", timeout_s: float = TIMEOUT_S) -> None:
        try:
            parts = urlsplit(url or LINK_LOCAL)
            host, port = parts.hostname, parts.port or 80
        except ValueError:
            host, port = None, 0
        if host is None or parts.scheme != "http":
            raise SetupError(
                f"{url!r} is no metadata server.", next_step=f"Give one like {LINK_LOCAL}, or leave it out."
            )
        self._host, self._port = host, port
        self._timeout_s = timeout_s

    def ask(self, path: str, headers: Mapping[str, str], *, method: str = "GET", wait_s: float = 0.0) -> Answer:
        """Over within the timeout, however slowly the answer comes. `wait_s` more is how long the server was asked to
        wait with it. Raises NoAnswer."""
        connection = http.client.HTTPConnection(self._host, self._port)
        try:
            connection.sock = self._connect(self._timeout_s + wait_s)
            connection.request(method, path, headers=dict(headers))
            response = connection.getresponse()
            body = response.read(_MOST_BYTES)
            found = {name.lower(): value for name, value in response.getheaders()}
            return Answer(response.status, found, body.decode().strip())
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise NoAnswer(f"{method} {path}: {error!r}") from error
        finally:
            connection.close()

    def _connect(self, limit_s: float) -> _Line:
        give_up_at = time.monotonic() + limit_s
        plain = socket.create_connection((self._host, self._port), limit_s)
        line = _Line(fileno=plain.detach())
        line.settimeout(limit_s)
        line.give_up_at = give_up_at
        return line
