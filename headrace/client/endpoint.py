"""Where gateways are and how httpx2 is to talk to them. Knows addresses and limits on waiting, not what is said."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import httpx2

from headrace.client.core import DEFAULT_URL, Broken, Call, Outcome, Reply, garbled, judged
from headrace.client.gateways import Gateways
from headrace.contract.errors import SetupError

_CONNECT_S = 5.0
_READ_S = 30.0
_STREAM_READ_S = 45.0  # three keep-alive pings
_OK = 200
_EVENTS = "text/event-stream"

LIMITS = httpx2.Limits(max_connections=None, max_keepalive_connections=32)
STREAM_TIMEOUT = httpx2.Timeout(_STREAM_READ_S, connect=_CONNECT_S)

Urls = str | Sequence[str]
"""One gateway's URL, several with commas between, or a list of them."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """The addresses of a fleet's gateways, at least one, and the headers that every call to them carries."""

    urls: tuple[str, ...]
    headers: dict[str, str]

    @classmethod
    def of(cls, url: Urls | None, api_key: str | None) -> Self:
        """As given, else by the client's two names in the environment. Raises SetupError for what is no HTTP URL."""
        given = url or os.environ.get("HEADRACE_URL") or DEFAULT_URL
        parts = given.split(",") if isinstance(given, str) else given
        urls = tuple(dict.fromkeys(part.strip().rstrip("/") for part in parts if part.strip()))
        for each in urls or (str(given),):
            if not each.startswith(("http://", "https://")):
                raise SetupError(
                    f"{each!r} is not the URL of a gateway.",
                    next_step=f"Give one like {DEFAULT_URL}, or several with commas between.",
                )
        api_key = api_key or os.environ.get("HEADRACE_API_KEY")
        return cls(urls, {"Authorization": f"Bearer {api_key}"} if api_key else {})


def timeout_of(call: Call) -> httpx2.Timeout:
    return httpx2.Timeout(_READ_S + call.wait_s, connect=_CONNECT_S)


def headers_of(call: Call) -> dict[str, str]:
    return {**call.headers, **({} if call.json is None else {"Content-Type": "application/json"})}


def outcome_of(response: httpx2.Response, call: Call, gateways: Gateways) -> Outcome:
    """What a response that was read to its end means to this call."""
    outcome = judged(reply_of(response, response.content), call, met=gateways.met)
    gateways.met = gateways.met or isinstance(outcome, Reply)
    return outcome


def no_events(response: httpx2.Response, gateways: Gateways) -> Broken | None:
    """Why a good response is no stream of events, or None: then one of the gateways has answered."""
    kind = response.headers.get("content-type", _EVENTS)
    if response.status_code != _OK or not kind.startswith(_EVENTS):
        return garbled(f"the answer (HTTP {response.status_code}, {kind}) is no stream of events", met=gateways.met)
    gateways.met = True
    return None


def reply_of(response: httpx2.Response, content: bytes) -> Reply:
    return Reply(response.status_code, {name.lower(): value for name, value in response.headers.items()}, content)


def broken_by(error: httpx2.RequestError, *, met: bool) -> Broken:
    """`met`: whether one of the gateways has answered before, so that a refusal is likely to pass."""
    if _refused(error):
        return Broken("the connection was refused", refused=True, nobody=not met)
    if isinstance(error, httpx2.DecodingError):
        return garbled(f"the answer is not what its headers say ({error})", met=met)
    return Broken(str(error) or type(error).__name__)


def _refused(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, ConnectionRefusedError):
            return True
        error = error.__cause__ or error.__context__
    return False
