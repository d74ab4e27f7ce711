"""Where the gateway is and how httpx2 is to talk to it. Knows addresses and limits on waiting, not what is said."""

import os
from dataclasses import dataclass
from typing import Self

import httpx2

from headrace.client.core import DEFAULT_URL, Broken, Call, Reply
from headrace.contract.errors import SetupError

_CONNECT_S = 5.0
_READ_S = 30.0
_STREAM_READ_S = 45.0  # three keep-alive pings

LIMITS = httpx2.Limits(max_connections=None, max_keepalive_connections=32)
STREAM_TIMEOUT = httpx2.Timeout(_STREAM_READ_S, connect=_CONNECT_S)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A gateway's address and the headers that every call to it carries."""

    url: str
    headers: dict[str, str]

    @classmethod
    def of(cls, url: str | None, api_key: str | None) -> Self:
        """As given, else by the client's two names in the environment. Raises SetupError for what is no HTTP URL."""
        url = (url or os.environ.get("HEADRACE_URL") or DEFAULT_URL).rstrip("/")
        api_key = api_key or os.environ.get("HEADRACE_API_KEY")
        if not url.startswith(("http://", "https://")):
            raise SetupError(f"{url!r} is not the URL of a gateway.", next_step=f"Give one like {DEFAULT_URL}.")
        return cls(url, {"Authorization": f"Bearer {api_key}"} if api_key else {})


def timeout_of(call: Call) -> httpx2.Timeout:
    return httpx2.Timeout(_READ_S + call.wait_s, connect=_CONNECT_S)


def reply_of(response: httpx2.Response, content: bytes) -> Reply:
    return Reply(response.status_code, {name.lower(): value for name, value in response.headers.items()}, content)


def broken_by(error: httpx2.TransportError, *, met: bool) -> Broken:
    """`met`: whether this gateway has answered before, so that a refusal is likely to pass."""
    if _refused(error):
        return Broken("the connection was refused", nobody=not met)
    return Broken(str(error) or type(error).__name__)


def _refused(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, ConnectionRefusedError):
            return True
        error = error.__cause__ or error.__context__
    return False
