"""One request to a metadata server: plain HTTP on the link, no proxy, a limit on time and size. Knows no cloud."""

import http.client
from collections.abc import Mapping
from dataclasses import dataclass
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
        """`wait_s` is how long the server was asked to wait with its answer. Raises NoAnswer."""
        connection = http.client.HTTPConnection(self._host, self._port, timeout=self._timeout_s + wait_s)
        try:
            connection.request(method, path, headers=dict(headers))
            response = connection.getresponse()
            body = response.read(_MOST_BYTES)
            found = {name.lower(): value for name, value in response.getheaders()}
            return Answer(response.status, found, body.decode().strip())
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise NoAnswer(f"{method} {path}: {error!r}") from error
        finally:
            connection.close()
