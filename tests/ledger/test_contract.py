"""One suite for every ledger: what a broker must do for us, on SQS's API and on a real RabbitMQ."""

import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from headrace.contract.errors import LedgerUnavailable, SetupError
from headrace.ledger.base import Delivery, open_ledger
from headrace.settings import LedgerSettings, Settings
from tests.chaos.faults.conditions import Conditions
from tests.chaos.faults.proxy import proxying
from tests.ledger.benches import PATIENCE_S, AmqpBench, Bench, SqsBench, eventually, receive
from tests.moto_server import CREDENTIALS


def test_what_is_published_is_received_and_acked(bench: Bench) -> None:
    ledger = bench.open()
    assert ledger.check() == ()
    bodies = {b"%d" % i for i in range(25)}
    for body in bodies:
        ledger.publish(body)
    began = time.monotonic()
    found = receive(ledger, 25)
    assert {each.body for each in found} == bodies
    assert {each.attempts for each in found} == {1}
    assert len({each.receipt for each in found}) == 25
    assert all(began - 1.0 <= each.received_at <= time.monotonic() for each in found)
    assert ledger.receive(10, 0.0) == []
    assert ledger.ack(found) == []
    bench.lapse(ledger)
    assert bench.left() == 0


def test_what_nobody_acked_comes_again(bench: Bench) -> None:
    first, second = bench.open(), bench.open(window=7)
    first.publish(b"a")
    receive(first, 1)
    assert second.receive(1, 0.0) == []
    bench.lapse(first)
    (again,) = receive(second, 1)
    assert (again.body, again.attempts) == (b"a", 2)
    assert second.ack([again]) == []


def test_what_is_given_back_comes_at_once(bench: Bench) -> None:
    """To anybody; on RabbitMQ that may be whoever gave it back."""
    first, second = bench.open(), bench.open(window=7)
    for body in (b"a", b"b", b"c"):
        first.publish(body)
    held = receive(first, 3)
    began = time.monotonic()
    first.release(held)
    found: set[bytes] = set()
    while len(found) < 3 and time.monotonic() - began < PATIENCE_S:
        found |= {each.body for ledger in (first, second) for each in ledger.receive(3, 0.0)}
    assert found == {b"a", b"b", b"c"}


def test_a_full_lease_from_now(bench: Bench) -> None:
    ledger = bench.open()
    for body in (b"a", b"b"):
        ledger.publish(body)
    held = receive(ledger, 2)
    assert ledger.extend(held) == []
    assert ledger.receive(2, 0.0) == []


def test_a_stale_receipt_is_no_error(bench: Bench) -> None:
    """What was acked, or came by a connection that is gone. SQS may say nothing of it; nobody raises."""
    ledger = bench.open()
    ledger.publish(b"a")
    held = receive(ledger, 1)
    assert ledger.ack(held) == []
    bench.lapse(ledger)
    lost = ledger.extend(held)
    assert lost == held
    ledger.release(held)
    ledger.ack(held)


def test_a_message_of_every_byte_and_size(bench: Bench) -> None:
    ledger = bench.open()
    body = b'{"text":"' + b"x" * 200_000 + b'"}'
    ledger.publish(body)
    assert receive(ledger, 1)[0].body == body


def test_many_publish_at_once(bench: Bench) -> None:
    ledger = bench.open()
    threads = [threading.Thread(target=ledger.publish, args=(b"%d" % i,)) for i in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S)
    assert {each.body for each in receive(ledger, 12)} == {b"%d" % i for i in range(12)}


def test_a_queue_that_is_gone_refuses_and_may_come_back(bench: Bench) -> None:
    ledger = bench.open()
    ledger.publish(b"a")
    bench.remove_queue()
    with pytest.raises(LedgerUnavailable) as refused:
        ledger.publish(b"b")
    assert refused.value.status == 503
    assert refused.value.retryable
    with pytest.raises(LedgerUnavailable):
        ledger.receive(1, 0.0)
    bench.make_queue()
    ledger.publish(b"c")
    assert [each.body for each in receive(ledger, 1)] == [b"c"]


def test_a_queue_is_only_made_when_that_is_said(bench: Bench) -> None:
    bench.remove_queue()
    with pytest.raises(SetupError, match="There is no"):
        bench.open().check()
    ledger = bench.open(create=True)
    assert ledger.check() == ()
    assert ledger.check() == ()
    ledger.publish(b"a")
    assert receive(ledger, 1)[0].body == b"a"
    bench.remove_queue()


@pytest.mark.parametrize("url", ["sqs://jobs", "amqp://me:secret@127.0.0.1:9/"])
def test_a_broker_that_is_not_there(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bounded wait, and an error without the password."""
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    settings = LedgerSettings(url=url, endpoint_url="http://127.0.0.1:9", timeout_s=1.0)
    ledger = open_ledger(Settings(ledger=settings))
    assert ledger is not None
    began = time.monotonic()
    calls: list[Callable[[], object]] = [
        partial(ledger.publish, b"a"),
        partial(ledger.receive, 1, 0.0),
        ledger.check,
    ]
    for call in calls:
        with pytest.raises(LedgerUnavailable) as refused:
            call()
        assert "secret" not in refused.value.explain()
    assert time.monotonic() - began < 30
    ledger.close()


@pytest.mark.parametrize(
    ("attributes", "said"),
    [
        ({"RedrivePolicy": '{{"maxReceiveCount": "5", "deadLetterTargetArn": "{arn}"}}'}, "after 5 receives"),
        ({"RedrivePolicy": '{{"maxReceiveCount": "100", "deadLetterTargetArn": "{arn}"}}'}, ""),
    ],
)
def test_a_redrive_policy_that_gives_up_early(sqs_bench: SqsBench, attributes: dict[str, str], said: str) -> None:
    sqs_bench.remove_queue()
    name, sqs_bench.name = sqs_bench.name, f"{sqs_bench.name}-dead"
    sqs_bench.make_queue()
    arn, sqs_bench.name = f"arn:aws:sqs:us-east-1:123456789012:{sqs_bench.name}", name
    sqs_bench.make_queue(**{key: value.format(arn=arn) for key, value in attributes.items()})
    ledger = sqs_bench.open()
    if said:
        with pytest.raises(SetupError, match=said):
            ledger.check()
    else:
        assert ledger.check() == ()


def test_messages_that_are_dropped_within_a_day(sqs_bench: SqsBench) -> None:
    sqs_bench.remove_queue()
    sqs_bench.make_queue(MessageRetentionPeriod="3600")
    (warning,) = sqs_bench.open().check()
    assert "drops messages after 3600 s" in warning


@pytest.mark.parametrize(
    ("arguments", "said"), [({"durable": False}, "not durable"), ({"auto_delete": True}, "not durable")]
)
def test_a_queue_that_a_restart_would_empty(amqp_bench: AmqpBench, arguments: dict[str, bool], said: str) -> None:
    amqp_bench.remove_queue()
    amqp_bench.make_queue(**arguments)
    with pytest.raises(SetupError, match=said):
        amqp_bench.open().check()


def test_a_confirm_that_is_late_is_not_taken_for_the_next_message(amqp_bench: AmqpBench) -> None:
    """The broker's word for a message that was given up must not let another one pass for confirmed."""
    ledger = amqp_bench.open()
    ledger.publish(b"a")
    amqp_bench.remove_queue()
    for _ in range(3):
        with pytest.raises(LedgerUnavailable, match="NO_ROUTE"):
            ledger.publish(b"b")


def test_half_a_frame_is_not_waited_for(amqp_bench: AmqpBench) -> None:
    """On a slow line, or one that has gone silent: whoever looks goes on, and the message is whole in the end."""
    body = b"x" * 20_000
    with proxying(amqp_bench.server.url) as proxy:
        url = f"amqp://guest:guest@{proxy.address}/?queue={amqp_bench.name}"
        ledger: Any = open_ledger(Settings(ledger=LedgerSettings(url=url, timeout_s=PATIENCE_S)))
        assert ledger.receive(1, 0.0) == []
        proxy.set(Conditions(bytes_per_s=40_000))
        amqp_bench.open().publish(body)
        found: list[Delivery] = []
        halves: set[int] = set()

        def arrived() -> bool:
            found.extend(ledger.receive(1, 0.0))
            halves.add(len(ledger._consumer.line.connection.connection.transport._read_buffer))
            return bool(found)

        eventually(arrived)
        ledger.close()
    assert [each.body for each in found] == [body]
    assert max(halves) > 1_000


@pytest.mark.parametrize(
    "url", ["redis://x", "jobs", "sqs://", "sqs://a/b/c", "sqs://a?b=c", "amqp://", "amqp://h/v?x=1", "amqp://h:x/v"]
)
def test_what_is_no_url_of_a_ledger(url: str) -> None:
    with pytest.raises(SetupError):
        open_ledger(Settings(ledger=LedgerSettings(url=url)))


def test_no_url_is_no_ledger() -> None:
    assert open_ledger(Settings()) is None
