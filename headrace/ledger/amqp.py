"""A ledger on RabbitMQ: channels, receipts and confirms. Makes no queue unless it is told to.

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
from typing import Any
from urllib.parse import parse_qs, urlsplit, urlunsplit

import structlog

from headrace.contract.errors import SetupError
from headrace.ledger.base import Delivery, Terms, without_password
from headrace.ledger.rabbit import LOST, Line, Rabbit
from headrace.settings import LedgerSettings, Settings

HAND_OVER_S = 25 * 60.0
QUEUE = "headrace"
HEARTBEAT_S = 20.0
_SOON_S = 0.001
"""The shortest wait for bytes. Without any py-amqp would spin in the middle of a frame until the rest of it is here,
which on a line that has gone silent is for ever."""
_MOST_LINES = 16
"""Idle publishing connections that are kept."""
_MOST_DELIVERIES = 2**53

_NACK = (60, 120)
"""`basic.nack`, RabbitMQ's extension of AMQP, which py-amqp can send and has no method for."""

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class _Consumer:
    line: Line
    generation: int
    arrived: deque[Delivery] = field(default_factory=deque)

    def take(self, message: Any) -> None:
        headers = message.properties.get("application_headers") or {}
        before = headers.get("x-delivery-count")
        if type(before) is not int or not 0 <= before <= _MOST_DELIVERIES:
            # A classic queue counts nothing, and passes on whatever its publisher has written there.
            before = 1 if message.delivery_info["redelivered"] else 0
        body = message.body if isinstance(message.body, bytes) else str(message.body).encode(errors="surrogatepass")
        receipt = f"{self.generation}:{message.delivery_tag}"
        self.arrived.append(Delivery(body, receipt, time.monotonic(), before + 1))


class AmqpLedger:
    """A `Ledger` on one durable queue of a RabbitMQ."""

    def __init__(self, url: str, queue: str, settings: LedgerSettings) -> None:
        self._broker = Rabbit(url, queue, settings.timeout_s)
        self._settings = settings
        self._consumer: _Consumer | None = None
        self._generation = 0
        self._lines: list[Line] = []
        self._lock = threading.Lock()
        self.terms = Terms(math.inf, 0.0, settings.hand_over_s or HAND_OVER_S)

    def check(self) -> tuple[str, ...]:
        with self._broker.explained():
            return self._broker.check(create=self._settings.create)

    def publish(self, body: bytes) -> None:
        with self._broker.explained():
            line, fresh = self._borrow()
            try:
                self._send(line, body)
            except TimeoutError:
                line.drop()
                raise
            except BaseException as error:
                # A confirm that is still to come must not be taken for the next message's.
                line.drop()
                if fresh or not isinstance(error, LOST):
                    raise
                line = self._broker.line()  # it had been idle, and the broker was started anew meanwhile
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
        with self._broker.explained():
            try:
                if self._consumer is None:
                    self._consumer = self._consume()
                yield self._consumer
            except BaseException:
                self._forget()
                raise

    def _consume(self) -> _Consumer:
        self._generation += 1
        line = self._broker.line(HEARTBEAT_S)
        consumer = _Consumer(line, self._generation)
        try:
            line.channel.basic_qos(0, self._settings.window, False)
            line.channel.basic_consume(self._broker.queue, no_ack=False, callback=consumer.take)
        except BaseException:
            line.drop()
            raise
        return consumer

    def _drain(self, consumer: _Consumer, wait_s: float) -> None:
        """Whatever has arrived, and the first message within `wait_s`."""
        give_up_at = time.monotonic() + wait_s
        with suppress(TimeoutError):
            while True:
                left = 0.0 if consumer.arrived else give_up_at - time.monotonic()
                consumer.line.connection.drain_events(timeout=max(_SOON_S, left))

    def _forget(self) -> None:
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            consumer.line.drop()

    # -- publishing

    def _send(self, line: Line, body: bytes) -> None:
        properties = {"delivery_mode": 2}
        message = line.channel.prepare_message(body, content_type="application/json", properties=properties)
        limit_s = self._settings.timeout_s
        # Returns with the broker's confirm. `mandatory`: without a queue the message is returned, which raises here.
        line.channel.basic_publish(
            message, routing_key=self._broker.queue, mandatory=True, timeout=limit_s, confirm_timeout=limit_s
        )

    def _borrow(self) -> tuple[Line, bool]:
        """A connection for one publisher at a time, and whether it is new."""
        with self._lock:
            if self._lines:
                return self._lines.pop(), False
        return self._broker.line(), True

    def _give_back(self, line: Line) -> None:
        with self._lock:
            if len(self._lines) < _MOST_LINES:
                self._lines.append(line)
                return
        line.drop()


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
