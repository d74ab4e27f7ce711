"""What `headrace doctor` says of a ledger."""

import pytest

from headrace.cli import fleet_checks
from headrace.cli.findings import State
from headrace.contract.errors import SetupError
from headrace.settings import LedgerSettings
from tests.ledger.benches import AmqpBench, Bench, SqsBench
from tests.moto_server import CREDENTIALS


def test_no_ledger_is_not_spoken_of() -> None:
    assert fleet_checks.ledger(LedgerSettings()) == []


def test_a_queue_that_is_fit(bench: Bench) -> None:
    (found,) = fleet_checks.ledger(bench.settings())
    assert found.state is State.OK
    assert "guest:guest" not in found.message


def test_a_queue_that_is_not_there_is_not_made(bench: Bench) -> None:
    bench.remove_queue()
    (missing,) = fleet_checks.ledger(bench.settings())
    assert missing.state is State.FAIL
    assert "There is no" in missing.message
    assert "ledger.create" in missing.next_step
    (to_be_made,) = fleet_checks.ledger(bench.settings(create=True))
    assert to_be_made.state is State.OK
    with pytest.raises(SetupError, match="There is no"):
        bench.open().check()


@pytest.mark.parametrize("url", ["sqs://jobs", "amqp://me:secret@127.0.0.1:9/"])
def test_a_broker_that_is_away(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    (found,) = fleet_checks.ledger(LedgerSettings(url=url, endpoint_url="http://127.0.0.1:9"))
    assert found.state is State.FAIL
    assert found.next_step
    assert "secret" not in f"{found.message} {found.next_step}"


def test_a_queue_that_would_lose_jobs(amqp_bench: AmqpBench) -> None:
    amqp_bench.remove_queue()
    amqp_bench.make_queue(durable=False)
    (found,) = fleet_checks.ledger(amqp_bench.settings())
    assert found.state is State.FAIL
    assert "durable" in found.next_step


def test_a_queue_that_forgets_soon(sqs_bench: SqsBench) -> None:
    sqs_bench.remove_queue()
    sqs_bench.make_queue(MessageRetentionPeriod="3600")
    (found,) = fleet_checks.ledger(sqs_bench.settings())
    assert found.state is State.WARN
    assert "3600 s" in found.message


def test_what_is_no_url_of_a_ledger() -> None:
    (found,) = fleet_checks.ledger(LedgerSettings(url="redis://x"))
    assert found.state is State.FAIL
    assert "sqs://" in found.next_step
