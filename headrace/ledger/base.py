"""What an outer durable queue is to us: seven calls, and the terms on which it lends messages. Knows no broker.

A message is somebody's for as long as its lease lasts. Whoever has lost it neither extends nor acknowledges it: with
some brokers that would succeed, and take it away from its new holder.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Protocol, cast
from urllib.parse import urlsplit

from headrace.contract.errors import SetupError
from headrace.settings import Settings

DRIVERS: Mapping[str, str] = {
    "sqs": "headrace.ledger.sqs",
    "amqp": "headrace.ledger.amqp",
    "amqps": "headrace.ledger.amqp",
}
"""Scheme of `ledger.url` → the module whose `open_ledger(settings)` makes one, imported when it is asked for."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """A message that is ours for now. `receipt` names this delivery of it, not the message; `attempts` counts
    deliveries, this one included, as far as the broker tells. `received_at`, in seconds of the
    monotonic clock, is when the broker was asked, or when the message came by itself."""

    body: bytes
    receipt: str
    received_at: float
    attempts: int = 1


@dataclass(frozen=True, slots=True)
class Terms:
    """How messages are lent, in seconds. After `lease_s` unextended one is somebody else's (infinite where it is ours
    as long as the connection lasts), so it is extended every `extend_s`; after `hand_over_s` in all it must go back."""

    lease_s: float
    extend_s: float
    hand_over_s: float


class Ledger(Protocol):
    """One queue of a broker. `publish` is safe for threads, everything else is for one thread at a time.

    Every method but `close` raises LedgerUnavailable, after a bounded wait, when the broker is away or refuses. What it
    was asked may have happened then, and may be asked again.
    """

    @property
    def terms(self) -> Terms: ...

    def check(self) -> tuple[str, ...]:
        """Whether the queue is fit for jobs: warnings for a person. Raises SetupError for a queue that would lose some,
        or that is not there; makes it when the settings say so."""
        ...

    def publish(self, body: bytes) -> None:
        """Returns when the broker has confirmed that the message is in the queue."""
        ...

    def receive(self, most: int, wait_s: float) -> list[Delivery]:
        """Up to `most`, after up to `wait_s` seconds if there are none yet. With 0 it takes none and does not wait, and
        looks after the connection."""
        ...

    def extend(self, deliveries: Sequence[Delivery]) -> list[Delivery]:
        """A full lease from now for each; answers those that are no longer ours."""
        ...

    def release(self, deliveries: Sequence[Delivery]) -> None:
        """Give them back now, for anybody to receive. One that is no longer ours is left alone."""
        ...

    def ack(self, deliveries: Sequence[Delivery]) -> list[Delivery]:
        """Done: take them out of the queue. Answers those that are no longer ours; they will come again."""
        ...

    def close(self) -> None:
        """Drop connections; raises nothing. What is still held comes to others when its lease is over."""
        ...


def open_ledger(settings: Settings) -> Ledger | None:
    """The ledger that `ledger.url` names, None without one. Waits for nothing. Raises SetupError for what is no URL of
    a ledger, and where the extra `ledger` is missing."""
    url = settings.ledger.url
    if not url:
        return None
    scheme = urlsplit(url).scheme
    if scheme not in DRIVERS:
        raise SetupError(
            f"{without_password(url)!r} is not the URL of a ledger.",
            next_step="Give ledger.url one like sqs://jobs or amqp://user:password@host:5672/vhost?queue=jobs.",
            param="ledger.url",
        )
    try:
        return cast(Ledger, import_module(DRIVERS[scheme]).open_ledger(settings))
    except ImportError as error:
        raise SetupError(
            f"A ledger on {scheme} needs {error.name}.", next_step="Run: pip install 'headrace[ledger]'"
        ) from error


def without_password(url: str) -> str:
    """A URL as it may be shown."""
    before, at, after = url.rpartition("@")
    return f"{before.partition('://')[0]}://…@{after}" if at else url
