"""One RabbitMQ and one queue of it: how they are reached, and what is wrong with them. Knows kombu and no message."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Final

import kombu
from kombu.exceptions import OperationalError
from kombu.transport.pyamqp import Transport

from headrace.contract.errors import LedgerUnavailable, SetupError
from headrace.ledger.base import without_password

LOST: Final = (
    *Transport.connection_errors,
    AttributeError,  # of a connection that is gone: py-amqp now and then says it this way
)
_ERRORS: Final = (
    *LOST,
    *Transport.channel_errors,
    *Transport.recoverable_connection_errors,
    OperationalError,
)

_QUORUM: Final = {"x-queue-type": "quorum", "x-delivery-limit": 1_000_000}
"""RabbitMQ 4 drops a message at its twentieth redelivery, if nothing is said. Which job is given up is decided here."""


@dataclass(frozen=True, slots=True)
class Line:
    """A connection with one channel on it."""

    connection: Any
    channel: Any

    def drop(self) -> None:
        """Without a word: a broker that hangs would not answer one."""
        with suppress(*_ERRORS):
            self.connection.collect()


class Rabbit:
    """`timeout_s` is the longest silence that is borne."""

    def __init__(self, url: str, queue: str, timeout_s: float) -> None:
        self.queue = queue
        self._url = url
        self._timeout_s = timeout_s

    def line(self, heartbeat_s: float = 0.0) -> Line:
        """A new one, with publisher confirms."""
        connection = self._connect(heartbeat_s)
        try:
            return Line(connection, connection.channel())
        except BaseException:
            connection.collect()
            raise

    def check(self, *, create: bool) -> tuple[str, ...]:
        """See `Ledger.check`."""
        connection = self._connect()
        try:
            connection.channel().queue_declare(self.queue, passive=True)
            return self._judge(connection)
        except connection.channel_errors as error:
            if getattr(error, "reply_code", None) != 404:
                raise
            if not create:
                raise SetupError(
                    f"There is no queue {self.queue!r} on {without_password(self._url)}.",
                    next_step="Make it (docs/08-ledgers.md), or set ledger.create.",
                    param="ledger.create",
                ) from error
            self._declare(connection)
            return ()
        finally:
            connection.collect()

    @contextmanager
    def explained(self) -> Iterator[None]:
        """Turns what the broker and the network say into LedgerUnavailable."""
        try:
            yield
        except _ERRORS as error:
            reason = without_password(str(error) or type(error).__name__)
            raise LedgerUnavailable(
                f"RabbitMQ cannot be used: {reason.rstrip('.')}.",
                next_step=f"Check that it runs, and that the queue {self.queue!r} is there.",
            ) from error

    def _connect(self, heartbeat_s: float = 0.0) -> Any:
        limit_s = self._timeout_s
        connection: Any = kombu.Connection(  # type: ignore[attr-defined, no-untyped-call]
            self._url,
            heartbeat=heartbeat_s,
            connect_timeout=limit_s,
            # Named, so that it is compared with the certificate: None stands for the host of the URL.
            ssl={"server_hostname": None} if self._url.startswith("amqps") else False,
            transport_options={"confirm_publish": True, "read_timeout": limit_s, "write_timeout": limit_s},
        )
        connection.ensure_connection(max_retries=1, interval_start=0, interval_step=0, interval_max=0)
        return connection

    def _declare(self, connection: Any) -> None:
        connection.channel().queue_declare(self.queue, durable=True, auto_delete=False, arguments=dict(_QUORUM))

    def _judge(self, connection: Any) -> tuple[str, ...]:
        """What the broker says of a queue when it is declared as ours would be: it names the first difference."""
        try:
            self._declare(connection)
        except connection.channel_errors as error:
            said = str(error)
            if any(f"'{wrong}'" in said for wrong in ("durable", "auto_delete", "exclusive")):
                raise SetupError(
                    f"The queue {self.queue!r} is not durable: {said}.",
                    next_step="Declare it durable and neither exclusive nor auto-delete: others lose their jobs.",
                ) from error
            version = str(connection.connection.server_properties.get("version", ""))
            if "x-delivery-limit" in said or (version[:1] >= "4" and "x-queue-type" not in said):
                return (
                    f"The quorum queue {self.queue!r} may drop what comes again (RabbitMQ 4: the twentieth time):"
                    f" declare it with x-delivery-limit {_QUORUM['x-delivery-limit']}, or set a policy.",
                )
        return ()
