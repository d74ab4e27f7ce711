"""`headrace dlq` as a person types it, against a real gateway whose jobs are dead."""

import json
import sys
import time

import httpx2
import pytest
import typer

from headrace.cli import main
from tests.integration.gateway.scripted_worker import MODEL, ScriptedWorker
from tests.integration.gateway.serving import Gateway
from tests.integration.gateway.test_dead_letters import ids_in, listed, parked, parked_at_once
from tests.unit.cli.test_main import Ran, assert_one_line, run


def dlq(gateway: Gateway, *arguments: str, stdin: bytes = b"") -> Ran:
    return run("dlq", *arguments, "--url", gateway.url, stdin=stdin)


def test_a_table_and_one_in_full(gateway: Gateway, client: httpx2.Client, worker: ScriptedWorker) -> None:
    old, young = parked(client, worker, 2, metadata={"row": "7"})
    heading, *rows = dlq(gateway, "list").out.splitlines()
    assert heading.split() == ["JOB", "MODEL", "REASON", "ATTEMPTS", "DEATHS", "DIED", "LAST", "ERROR"]
    assert [row.split()[:5] for row in rows] == [[job_id, MODEL, "poison", "3", "3"] for job_id in (young, old)]
    assert "worker_died" in rows[0]
    shown = dlq(gateway, "show", old).out
    for word in ("poison", worker.name, "after 5 tokens", "row", "prompt:\ngo\n", "as far as it came:\nhalf "):
        assert word in shown
    assert json.loads(dlq(gateway, "show", old, "--json").out)["id"] == old
    letters = [json.loads(line) for line in dlq(gateway, "list", "--json", "--limit", "1").out.splitlines()]
    assert [letter["id"] for letter in letters] == [young]


def test_filters(gateway: Gateway, client: httpx2.Client, worker: ScriptedWorker) -> None:
    parked(client, worker, metadata={"row": "7"})

    def count(*arguments: str) -> int:
        return len(dlq(gateway, "list", *arguments, "--json").out.splitlines())

    assert count("--model", "byte-alias", "--code", "worker_died", "--tenant", "default", "--metadata", "row=7") == 1
    assert count("--metadata", "row=8") == count("--lane", "x@stable") == count("--code", "engine_error") == 0
    assert (count("--since", "1m"), count("--until", "1m")) == (1, 0)
    assert (count("--since", "2000-01-01"), count("--until", "2000-01-01T12:00:00+02:00")) == (1, 0)
    assert_one_line(dlq(gateway, "list", "--since", "yesterday"), "yesterday", "2h")
    assert_one_line(dlq(gateway, "list", "--metadata", "row"), "key=value")
    assert_one_line(dlq(gateway, "list", "job_1"), "job_1")


def test_redriven_at_a_rate(gateway: Gateway, client: httpx2.Client, worker: ScriptedWorker) -> None:
    ids = parked_at_once(client, worker, 4)
    dry = dlq(gateway, "redrive", "--dry-run")
    assert (dry.code, dry.out.split(), dry.err) == (0, ids, "4 would be redriven\n")
    one = dlq(gateway, "redrive", "--limit", "1", "--json")
    first = json.loads(one.out)
    assert (first["id"], first["error"]) == (ids[0], None)
    began = time.monotonic()
    ran = dlq(gateway, "redrive", "--rate", "20", "--deadline", "60", "--model", MODEL)
    assert time.monotonic() - began > 2 / 20
    assert (ran.code, ran.err) == (0, "3 redriven\n")
    pairs = [line.split() for line in ran.out.splitlines()]
    assert [old for old, _ in pairs] == ids[1:]
    new = worker.queue.get(pairs[0][1])
    assert new is not None
    assert new.deadline_at == (new.created_at or 0) + 60_000
    assert f"redriven_as     {first['redriven_as']}" in run("jobs", "show", ids[0], "--url", gateway.url).out
    again = dlq(gateway, "redrive", ids[0])
    assert again.out.split() == [ids[0], first["redriven_as"]]


def test_what_had_to_stay_is_said_and_is_the_exit_code(
    gateway: Gateway, client: httpx2.Client, worker: ScriptedWorker
) -> None:
    parked_at_once(client, worker, 1)
    alive = client.post("/v1/jobs", json={"model": MODEL, "prompt": "go"}).json()["id"]
    ran = dlq(gateway, "redrive", alive)
    assert (ran.code, ran.out) == (1, "")
    assert f"{alive}  left: job_not_found" in ran.err
    assert "0 redriven, 1 left where it is" in ran.err


def test_purging_asks_first(gateway: Gateway, client: httpx2.Client, worker: ScriptedWorker) -> None:
    old, young = parked_at_once(client, worker, 2)
    assert_one_line(dlq(gateway, "purge", old), "1 dead job would be purged", "--yes")
    assert_one_line(dlq(gateway, "purge", "--yes"), "all")
    assert dlq(gateway, "purge", old, "--dry-run") == Ran(0, f"{old}\n", "1 would be purged\n")
    assert dlq(gateway, "purge", old, "--yes") == Ran(0, f"{old}\n", "1 purged\n")
    assert dlq(gateway, "purge", "--all", "--yes").out.split() == [young]
    assert len(dlq(gateway, "list").out.splitlines()) == 1
    assert_one_line(dlq(gateway, "show", old), old)


def test_who_dies_while_the_question_stands_is_not_purged(
    gateway: Gateway, client: httpx2.Client, worker: ScriptedWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    (old,) = parked_at_once(client, worker, 1)
    young: list[str] = []

    def confirm(question: str, **_: bool) -> None:
        assert "1 dead job " in question
        young.extend(parked_at_once(client, worker, 1))

    monkeypatch.setattr(sys.stdin, "isatty", lambda: True)
    monkeypatch.setattr(typer, "confirm", confirm)
    assert main.run(["dlq", "purge", "--all", "--url", gateway.url]) == 0
    assert ids_in(listed(client)) == young
    assert_one_line(dlq(gateway, "purge", old), "no such")


@pytest.mark.parametrize("rate", ["0", "-1", "nan", "inf", "1e-12", "5e-324"])
def test_a_rate_that_is_none(gateway: Gateway, client: httpx2.Client, worker: ScriptedWorker, rate: str) -> None:
    ids = parked_at_once(client, worker, 1)
    assert_one_line(dlq(gateway, "redrive", "--rate", rate), "above 0")
    assert_one_line(dlq(gateway, "redrive", "--dry-run", "--rate", rate), "above 0")
    assert ids_in(listed(client)) == ids


@pytest.mark.parametrize("deadline", ["nan", "inf", "-inf"])
def test_a_deadline_that_is_none(
    gateway: Gateway, client: httpx2.Client, worker: ScriptedWorker, deadline: str
) -> None:
    (parked_one,) = parked_at_once(client, worker, 1)
    for verb in (["dlq", "redrive"], ["replay", parked_one], ["submit", "go"]):
        ran = run(*verb, f"--deadline={deadline}", "--url", gateway.url)
        assert (ran.code, ran.out) == (2, "")
        assert "--deadline" in ran.err
    assert ids_in(listed(client)) == [parked_one]


@pytest.mark.parametrize("verb", [["list"], ["redrive"], ["purge", "--yes"]])
def test_half_a_character(gateway: Gateway, verb: list[str]) -> None:
    assert_one_line(dlq(gateway, *verb, "--tenant", "\udcff"), "`tenant`", "surrogates")
