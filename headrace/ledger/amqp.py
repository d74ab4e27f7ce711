"""A ledger on RabbitMQ. Knows kombu, channels and confirms; makes no queue unless it is told to.

A message is ours for as long as the channel that brought it. A broker that is away takes all of them back, and so does
one whose `consumer_timeout` (30 minutes by default) is over: then the whole channel is closed, hence the hand-over.

Source: RabbitMQ's guides on publisher confirms, consumer acknowledgements, quorum queues.
"""

import math
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit, urlunsplit

import kombu
import structlog
from kombu.exceptions import OperationalError
from kombu.transport.pyamqp import Transport

from headrace.contract.errors import LedgerUnavailable, SetupError
from headrace.ledger.base import Delivery, Terms, without_password
from headrace.settings import LedgerSettings, Settings

HAND_OVER_S = 25 * 60.0
QUEUE = "headrace"
HEARTBEAT_S = 20.0
_MOST_LINES = 8
"""Idle publishing connections that are kept."""

_QUORUM: Final = {"x-queue-type": "quorum", "x-delivery-limit": 1_000_000}
"""RabbitMQ 4 drops a message at its twentieth redelivery, if nothing is said. Which job is given up is decided here."""

_NACK = (60, 120)
"""`basic.nack`, RabbitMQ's extension of AMQP, which py-amqp can send and has no method for."""

_ERRORS: Final = (
    *Transport.connection_errors,
    *Transport.channel_errors,
    *Transport.recoverable_connection_errors,
    OperationalError,
    AttributeError,  # of a connection that is gone: py-amqp now and then says it this way
)

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Line:
    """A connection with one channel on it."""

    connection: Any
    channel: Any

    def drop(self) -> None:
        """Without a word: a broker that hangs would not answer one."""
        with suppress(*_ERRORS):
            self.connection.collect()


@dataclass(slots=True)
class _Consumer:
    line: _Line
    generation: int
    arrived: deque[Delivery] = field(default_factory=deque)

    def take(self, message: Any) -> None:
        headers = message.properties.get("application_headers") or {}
        before = int(headers.get("x-delivery-count", 1 if message.delivery_info["redelivered"] else 0))
        body = message.body if isinstance(message.body, bytes) else str(message.body).encode()
        receipt = f"{self.generation}:{message.delivery_tag}"
        self.arrived.append(Delivery(body, receipt, time.monotonic(), before + 1))


class AmqpLedger:
    """A `Ledger` on one durable queue of a RabbitMQ."""

    def __init__(self, url: str, queue: str, settings: LedgerSettings) -> None:
        self._url = url
        self._queue = queue
        self._settings = settings
        self._consumer: _Consumer | None = None
        self._generation = 0
        self._lines: list[_Line] = []
        self._lock = threading.Lock()
        self.terms = Terms(math.inf, 0.0, settings.hand_over_s or HAND_OVER_S)

    def check(self) -> tuple[str, ...]:
        with self._explained(), self._scratch() as connection:
            try:
                connection.channel().queue_declare(self._queue, passive=True)
            except connection.channel_errors as error:
                if getattr(error, "reply_code", None) != 404:
                    raise
                self._create(connection)
                return ()
            return self._judge(connection)

    def publish(self, body: bytes) -> None:
        with self._explained():
            line, fresh = self._borrow()
            try:
                self._send(line, body)
            except TimeoutError:
                line.drop()
                raise
            except BaseException as error:
                # A confirm that is still to come must not be taken for the next message's.
                line.drop()
                if fresh or not isinstance(error, line.connection.connection_errors):
                    raise
                line = self._line()  # it had been idle, and the broker was started anew meanwhile
                try:
                    self._send(line, body)
                except BaseException:
                    line.drop()
                    raise
            self._give_back(line)

    def receive(self, most: int, wait_s: float) -> list[Delivery]:
        with self._consuming() as consumer:
            consumer.line.connection.heartbeat_check()
            self._drain(consumer, wait_s if most and not consumer.arrived else 0.0)
            return [consumer.arrived.popleft() for _ in range(min(most, len(consumer.arrived)))]

    def extend(self, deliveries: Sequence[Delivery]) -> list[Delivery]:
        return [each for each in deliveries if self._tag(each) is None]

    def release(self, deliveries: Sequence[Delivery]) -> None:
        # Not `basic.reject`, which RabbitMQ 4.3 counts against the message.
        self._settle(deliveries, lambda channel, tag: channel.send_method(_NACK, "Lbb", (tag, False, True)))

    def ack(self, deliveries: Sequence[Delivery]) -> list[Delivery]:
        return self._settle(deliveries, lambda channel, tag: channel.basic_ack(tag))

    def close(self) -> None:
        with self._lock:
            lines, self._lines = self._lines, []
        for line in lines:
            line.drop()
        self._forget()

    # -- consuming

    def _settle(self, deliveries: Sequence[Delivery], settle: Any) -> list[Delivery]:
        lost = []
        for each in deliveries:
            tag = self._tag(each)
            if tag is None:
                log.info("ledger receipt is stale", ledger="amqp", receipt=each.receipt)
                lost.append(each)
                continue
            with self._consuming() as consumer:
                settle(consumer.line.channel, tag)
        return lost

    def _tag(self, delivery: Delivery) -> int | None:
        """The delivery's tag on the channel there is; None when it came by an earlier one."""
        generation, _, tag = delivery.receipt.partition(":")
        consumer = self._consumer
        return int(tag) if consumer is not None and int(generation) == consumer.generation else None

    @contextmanager
    def _consuming(self) -> Iterator[_Consumer]:
        """The channel that messages come by. Any error ends it, and with it every delivery that it brought."""
        with self._explained():
            try:
                if self._consumer is None:
                    self._consumer = self._consume()
                yield self._consumer
            except BaseException:
                self._forget()
                raise

    def _consume(self) -> _Consumer:
        self._generation += 1
        line = self._line(HEARTBEAT_S)
        consumer = _Consumer(line, self._generation)
        try:
            line.channel.basic_qos(0, self._settings.window, False)
            line.channel.basic_consume(self._queue, no_ack=False, callback=consumer.take)
        except BaseException:
            line.drop()
            raise
        return consumer

    def _drain(self, consumer: _Consumer, wait_s: float) -> None:
        """Whatever has arrived, and the first message within `wait_s`."""
        give_up_at = time.monotonic() + wait_s
        with suppress(TimeoutError):
            while True:
                left = 0.0 if consumer.arrived else max(0.0, give_up_at - time.monotonic())
                consumer.line.connection.drain_events(timeout=left)

    def _forget(self) -> None:
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            consumer.line.drop()

    # -- publishing

    def _send(self, line: _Line, body: bytes) -> None:
        properties = {"delivery_mode": 2}
        message = line.channel.prepare_message(body, content_type="application/json", properties=properties)
        limit_s = self._settings.timeout_s
        # Returns with the broker's confirm. `mandatory`: without a queue the message is returned, which raises here.
        line.channel.basic_publish(
            message, routing_key=self._queue, mandatory=True, timeout=limit_s, confirm_timeout=limit_s
        )

    def _borrow(self) -> tuple[_Line, bool]:
        """A connection for one publisher at a time, and whether it is new."""
        with self._lock:
            if self._lines:
                return self._lines.pop(), False
        return self._line(), True

    def _give_back(self, line: _Line) -> None:
        with self._lock:
            if len(self._lines) < _MOST_LINES:
                self._lines.append(line)
                return
        line.drop()

    # -- connecting

    def _line(self, heartbeat_s: float = 0.0) -> _Line:
        connection = self._connect(heartbeat_s)
        try:
            return _Line(connection, connection.channel())
        except BaseException:
            connection.collect()
            raise

    def _connect(self, heartbeat_s: float) -> Any:
        limit_s = self._settings.timeout_s
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

    @contextmanager
    def _scratch(self) -> Iterator[Any]:
        connection = self._connect(0.0)
        try:
            yield connection
        finally:
            connection.collect()

    def _create(self, connection: Any) -> None:
        if not self._settings.create:
            raise SetupError(
                f"There is no queue {self._queue!r} on {without_password(self._url)}.",
                next_step="Make it (docs/08-ledgers.md), or set ledger.create.",
                param="ledger.url",
            )
        connection.channel().queue_declare(self._queue, durable=True, auto_delete=False, arguments=dict(_QUORUM))

    def _judge(self, connection: Any) -> tuple[str, ...]:
        """What the broker says of a queue when it is declared as ours would be: it names the first difference."""
        try:
            connection.channel().queue_declare(self._queue, durable=True, auto_delete=False, arguments=dict(_QUORUM))
        except connection.channel_errors as error:
            said = str(error)
            for wrong in ("durable", "auto_delete", "exclusive"):
                if f"'{wrong}'" in said:
                    raise SetupError(
                        f"The queue {self._queue!r} is not durable: {said}.",
                        next_step="Declare it durable and neither exclusive nor auto-delete: others lose their jobs.",
                    ) from error
            version = str(connection.connection.server_properties.get("version", ""))
            if "x-delivery-limit" in said or (version[:1] >= "4" and "x-queue-type" not in said):
                return (
                    f"The quorum queue {self._queue!r} may drop what comes again (RabbitMQ 4: the twentieth time):"
                    f" declare it with x-delivery-limit {_QUORUM['x-delivery-limit']}, or set a policy.",
                )
        return ()

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except _ERRORS as error:
            reason = str(error) or type(error).__name__
            raise LedgerUnavailable(
                f"RabbitMQ cannot be used: {without_password(reason).rstrip('.')}.",
                next_step=f"Check that it runs, and that the queue {self._queue!r} is there.",
            ) from error


def open_ledger(settings: Settings) -> AmqpLedger:
    """`amqp://user:password@host:port/vhost?queue=name`; `amqps://` with TLS. Raises SetupError."""
    parts = urlsplit(settings.ledger.url)
    options = parse_qs(parts.query)
    queue = options.pop("queue", [QUEUE])[-1]
    try:
        port = parts.port
    except ValueError:
        port = 0
    if options or not parts.hostname or port == 0 or len(queue.encode()) > 255:
        raise SetupError(
            f"{without_password(settings.ledger.url)!r} names no queue of a RabbitMQ.",
            next_step="Give one like amqp://user:password@host:5672/vhost?queue=jobs.",
            param="ledger.url",
        )
    return AmqpLedger(urlunsplit(parts._replace(query="", fragment="")), queue, settings.ledger)
