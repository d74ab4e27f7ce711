"""How Redis is reached: clients with limits on every wait, and its errors as ours. Knows no key."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, cast

import redis
import redis.asyncio
from redis.asyncio.connection import AbstractConnection, SSLConnection, UnixDomainSocketConnection
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError, ResponseError
from redis.retry import Retry

from headrace.contract.errors import SetupError, StoreUnavailable

MOST_CONNECTIONS = 64
"""Of one event loop, beside its pub/sub connection. Redis answers one call at a time, so more would not be faster."""

_OLDEST = (6, 2)
# What a server answers that is there but cannot serve now. Any other refusal is a mistake of ours and must be seen.
_NOT_NOW = (
    "OOM",
    "MISCONF",
    "READONLY",
    "LOADING",
    "BUSY",
    "MASTERDOWN",
    "NOREPLICAS",
    "NOAUTH",
    "NOPERM",
    "WRONGPASS",
    "UNBLOCKED",  # a primary that becomes a replica lets go of who waits there for replicas,
    "WAIT cannot be used",  # and lets nobody wait from then on
)


_STALE = (redis.exceptions.ConnectionError,)
"""What is tried again, once. Not a timeout: whoever has waited for one has waited long enough to be told."""


class _Honest(AbstractConnection):
    """Says of a connection that went away while it was written to that it is gone. redis-py takes what it finds then,
    uvloop's word for a closed transport or no transport at all, for a mistake of its caller."""

    async def send_packed_command(self, command: bytes | str | Iterable[bytes], check_health: bool = True) -> None:
        try:
            await super().send_packed_command(command, check_health)
        except (RuntimeError, AttributeError) as error:
            await self.disconnect(nowait=True)
            raise redis.exceptions.ConnectionError(f"The connection is gone: {error}") from error


class _HonestTcp(_Honest, redis.asyncio.Connection):
    pass


class _HonestTls(_Honest, SSLConnection):
    pass


class _HonestUnix(_Honest, UnixDomainSocketConnection):
    pass


_HONEST: Mapping[type[AbstractConnection], type[AbstractConnection]] = {
    redis.asyncio.Connection: _HonestTcp,
    SSLConnection: _HonestTls,
    UnixDomainSocketConnection: _HonestUnix,
}


class _Busy(redis.exceptions.ConnectionError):
    """Every connection of a pool was in use for as long as a caller waits for one: Redis itself may be well."""


class _Turns(redis.asyncio.BlockingConnectionPool):
    """Says so when nobody's turn is over in time; redis-py's word for it is that of a server which is not there."""

    async def get_connection(self, *_: Any, **__: Any) -> AbstractConnection:
        try:
            return cast(AbstractConnection, await super().get_connection())  # type: ignore[no-untyped-call]
        except redis.exceptions.ConnectionError as error:
            if not isinstance(error.__cause__, TimeoutError):
                raise
            raise _Busy(f"All {self.max_connections} connections to Redis were busy for {self.timeout:g} s.") from error


def connect(url: str, *, connect_timeout_s: float = 5.0, socket_timeout_s: float = 5.0) -> redis.Redis:
    """A blocking client, safe for threads. A stale connection is replaced once; more is the caller's decision, and a
    server that does not answer is one that cannot be reached.

    Raises SetupError for what is not a Redis URL.
    """
    with _url_errors(url):
        return redis.Redis.from_url(
            url,
            socket_connect_timeout=connect_timeout_s,
            socket_timeout=socket_timeout_s,
            retry=Retry(NoBackoff(), 1, _STALE),
            decode_responses=False,
        )


def connect_async(
    url: str,
    *,
    connect_timeout_s: float = 5.0,
    socket_timeout_s: float = 5.0,
    connections: int = MOST_CONNECTIONS,
    turn_s: float | None = None,
) -> redis.asyncio.Redis:
    """The same for an event loop; close it with `await client.aclose()`.

    Any number of tasks may use it: those beyond `connections` wait for their turn, up to `turn_s` (None: as long as for
    an answer, `socket_timeout_s`).
    """
    with _url_errors(url):
        pool = _Turns.from_url(
            url,
            max_connections=connections,
            timeout=socket_timeout_s if turn_s is None else turn_s,
            socket_connect_timeout=connect_timeout_s,
            socket_timeout=socket_timeout_s,
            retry=AsyncRetry(NoBackoff(), 1, _STALE),
            decode_responses=False,
        )
        pool.connection_class = _HONEST[pool.connection_class]
        return redis.asyncio.Redis.from_pool(pool)


@contextmanager
def _url_errors(url: str) -> Iterator[None]:
    try:
        yield
    except ValueError as error:
        shown = url.rpartition("@")[2]  # what stands before may be a password
        raise SetupError(
            f"{shown!r} is not the URL of a Redis: {error}.",
            next_step="Give one like redis://127.0.0.1:6379/0, rediss://… or unix://….",
        ) from error


@contextmanager
def store_errors() -> Iterator[None]:
    """Turns what Redis and the network say into StoreUnavailable; a fault in a script passes as it is."""
    try:
        yield
    except ResponseError as error:
        if not any(word in str(error) for word in _NOT_NOW) and not _known_refusal(error):
            raise
        raise StoreUnavailable(f"Redis refuses to work: {error}.", next_step="Look at its log and memory.") from error
    except _Busy as error:
        raise StoreUnavailable(
            str(error), next_step="Try again soon; if it stays so, see what Redis is busy with, or run more gateways."
        ) from error
    except (RedisError, OSError) as error:
        raise StoreUnavailable(
            f"Redis cannot be reached: {str(error).rstrip('.')}.", next_step="Check that it runs, and the URL."
        ) from error


def _known_refusal(error: ResponseError) -> bool:
    return isinstance(error, (redis.exceptions.OutOfMemoryError, redis.exceptions.ReadOnlyError))


def check_server(client: redis.Redis) -> None:
    """Raises SetupError for a server too old or one that drops keys; StoreUnavailable when there is none."""
    with store_errors():
        info = client.info()
    check_info(info)


def check_info(info: Mapping[str, Any]) -> None:
    """The same from what `INFO` answered."""
    version = str(info["redis_version"])
    if tuple(int(part) for part in version.split(".")[:2]) < _OLDEST:
        raise SetupError(f"Redis {version} is too old; 6.2 or later is needed.", next_step="Point --redis-url at one.")
    policy = str(info.get("maxmemory_policy", "noeviction"))
    if policy != "noeviction":
        raise SetupError(
            f"Redis has the eviction policy {policy} and would silently drop jobs when memory runs out.",
            next_step="Run `redis-cli config set maxmemory-policy noeviction`.",
        )
