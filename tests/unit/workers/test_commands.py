"""Our commands in Celery's table."""

from collections.abc import Iterator
from typing import Any

import pytest
from celery.worker.control import Panel

from workers.console.commands import COMMANDS, Answers, Reply, keep_only_safe_commands, offer_commands, ok


@pytest.fixture(autouse=True)
def panel() -> Iterator[None]:
    """The table is one for the process: it is put back."""
    data, meta = dict(Panel.data), dict(Panel.meta)
    yield
    for table, before in ((Panel.data, data), (Panel.meta, meta)):
        table.clear()
        table.update(before)


def answers(**given: Any) -> Answers:
    return {name: given.get(name, lambda: ok("done")) for name in COMMANDS}


def send(name: str, **arguments: Any) -> Reply:
    reply: Reply = Panel.data[name](object(), **arguments)
    return reply


def test_what_could_harm_is_gone_and_what_asks_is_there() -> None:
    offer_commands(answers())
    keep_only_safe_commands()
    assert not set(Panel.data) & {"shutdown", "add_consumer", "pool_restart", "revoke", "terminate", "rate_limit"}
    assert set(COMMANDS) | {"ping", "active_queues", "stats"} <= set(Panel.data)
    assert set(Panel.meta) <= set(Panel.data)


def test_arguments_reach_who_answers() -> None:
    offer_commands(answers(cancel=lambda job: ok(job)))
    assert send("cancel", job="job_1") == {"ok": "job_1"}
    assert Panel.meta["cancel"].signature == "<job>"


@pytest.mark.parametrize("arguments", [{}, {"job": 3}, {"job": "job_1", "force": "yes"}])
def test_other_arguments_are_refused(arguments: dict[str, Any]) -> None:
    offer_commands(answers(cancel=lambda job: ok(job)))
    assert send("cancel", **arguments) == {"error": "cancel takes job"}
    assert send("pause", seconds="3") == {"error": "pause takes no arguments"}


def test_an_error_is_an_answer() -> None:
    def fail() -> Reply:
        raise RuntimeError("no engine")

    offer_commands(answers(capacity=fail))
    assert send("capacity") == {"error": "RuntimeError('no engine')"}


def test_a_process_without_a_worker_says_so() -> None:
    offer_commands()
    assert "runs tasks" in send("capacity")["ok"]
    assert "runs tasks" in send("drain")["error"]
