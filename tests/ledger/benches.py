"""What the suite needs of a broker besides the seven calls: time that passes, outages, and a look at what is left."""

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol, cast
from uuid import uuid4

import kombu
from moto.sqs.models import sqs_backends

from headrace.contract.errors import LedgerUnavailable
from headrace.ledger.base import Delivery, Ledger, open_ledger
from headrace.settings import LedgerSettings, Settings
from tests.ledger.rabbitmq_server import RabbitMq
from tests.moto_server import CREDENTIALS

ACCOUNT = "123456789012"
"""Moto's own."""
REGION = CREDENTIALS["AWS_DEFAULT_REGION"]
PATIENCE_S = 60.0
"""How long anything may take on a busy machine before a test gives up; an idle one takes a hundredth of it."""


class Bench(Protocol):
    """One queue of its own on one broker."""

    scheme: str
    poll_s: float
    """How long to wait for messages in one call, where that is short and many calls are made."""

    def settings(self, **given: Any) -> LedgerSettings: ...
    def open(self, **given: Any) -> Ledger:
        """What a process would open; closed with the bench."""
        ...

    def lapse(self, ledger: Ledger) -> None:
        """Whoever had this ledger has died, and its leases are over."""
        ...

    def left(self) -> int:
        """Messages in the queue, once nobody holds any."""
        ...

    def make_queue(self) -> None: ...
    def remove_queue(self) -> None: ...
    def close(self) -> None: ...


class SqsBench:
    """Ledgers of one setting are one: a client costs a third of a second, and a dead process leaves nothing in it."""

    scheme = "sqs"
    poll_s = 0.0

    def __init__(self, endpoint_url: str, sqs: Any, opened: dict[str, Ledger]) -> None:
        self._endpoint_url = endpoint_url
        self._sqs = sqs
        self._opened = opened
        self.name = f"jobs-{uuid4().hex[:12]}"
        self.make_queue()

    def settings(self, **given: Any) -> LedgerSettings:
        given = {"timeout_s": PATIENCE_S} | given
        return LedgerSettings(url=f"sqs://{self.name}", endpoint_url=self._endpoint_url, **given)

    def open(self, **given: Any) -> Ledger:
        settings = self.settings(**given)
        key = repr(settings)
        if key not in self._opened:
            self._opened[key] = cast(Ledger, open_ledger(Settings(ledger=settings)))
        return self._opened[key]

    def lapse(self, ledger: Ledger) -> None:
        for message in self._queue()._messages:
            message.visible_at = 0.0

    def pass_time(self, seconds: float) -> None:
        """So much less is left of each lease."""
        for message in self._queue()._messages:
            message.visible_at -= seconds * 1000

    def left(self) -> int:
        return len(self._queue()._messages)

    def make_queue(self, **attributes: str) -> None:
        self._sqs.create_queue(QueueName=self.name, Attributes=attributes)

    def remove_queue(self) -> None:
        url = self._sqs.get_queue_url(QueueName=self.name)["QueueUrl"]
        self._sqs.delete_queue(QueueUrl=url)

    def close(self) -> None:
        for ledger in self._opened.values():
            ledger.close()
        self._opened.clear()

    def _queue(self) -> Any:
        return sqs_backends[ACCOUNT][REGION].queues[self.name]


class AmqpBench:
    scheme = "amqp"
    poll_s = 0.02

    def __init__(self, server: RabbitMq) -> None:
        self.server = server
        self.name = f"jobs-{uuid4().hex[:12]}"
        self._opened: list[Ledger] = []
        self.make_queue()

    def settings(self, **given: Any) -> LedgerSettings:
        return LedgerSettings(url=f"{self.server.url}?queue={self.name}", **({"timeout_s": PATIENCE_S} | given))

    def open(self, **given: Any) -> Ledger:
        ledger = cast(Ledger, open_ledger(Settings(ledger=self.settings(**given))))
        self._opened.append(ledger)
        return ledger

    def lapse(self, ledger: Ledger) -> None:
        ledger.close()  # drops the connection without a word, as a process that dies

    def left(self) -> int:
        """Those that come back from a connection that was just dropped need a moment."""
        count, give_up_at = -1, time.monotonic() + 0.5
        while True:
            with self._channel() as channel:
                now = int(channel.queue_declare(self.name, passive=True).message_count)
            if now == count or time.monotonic() > give_up_at:
                return now
            count = now
            time.sleep(0.05)

    def make_queue(self, **arguments: Any) -> None:
        with self._channel() as channel:
            channel.queue_declare(self.name, **({"durable": True, "auto_delete": False} | arguments))

    def remove_queue(self) -> None:
        with self._channel() as channel:
            channel.queue_delete(self.name)

    def close(self) -> None:
        for ledger in self._opened:
            ledger.close()

    @contextmanager
    def _channel(self) -> Iterator[Any]:
        connection: Any = kombu.Connection(self.server.url, connect_timeout=PATIENCE_S)  # type: ignore[attr-defined, no-untyped-call]
        try:
            yield connection.channel()
        finally:
            connection.collect()


def receive(ledger: Ledger, count: int, within_s: float = PATIENCE_S) -> list[Delivery]:
    """So many messages, however many calls that takes."""
    found: list[Delivery] = []

    def complete() -> bool:
        found.extend(ledger.receive(count - len(found), 1.0))
        return len(found) >= count

    eventually(complete, within_s)
    return found


def publish(ledger: Ledger, body: bytes) -> None:
    """To a broker that may not be back yet."""

    def published() -> bool:
        ledger.publish(body)
        return True

    eventually(published)


def eventually(condition: Callable[[], bool], within_s: float = PATIENCE_S) -> None:
    """Ask until it holds; a ledger that is away is asked again."""
    give_up_at = time.monotonic() + within_s
    heard: Counter[str] = Counter()
    while True:
        try:
            if condition():
                return
        except LedgerUnavailable as error:
            heard[error.message] += 1
        assert time.monotonic() < give_up_at, f"it did not become so within {within_s} s: {heard}"
        time.sleep(0.01)
