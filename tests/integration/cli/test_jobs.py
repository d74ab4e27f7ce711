"""`submit`, `events` and `cancel` against a real fleet with the fake engine."""

import json
from collections.abc import Iterator

import pytest

from headrace import Client
from tests.integration.cli.test_up import Up
from tests.unit.cli.test_main import Ran, run


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    up = Up(tmp_path_factory.mktemp("fleet"), "--json")
    try:
        yield up.address()["url"]
    finally:
        up.close()


@pytest.fixture(scope="module")
def job(url: str) -> str:
    with Client(url) as client:
        handle = client.submit(model="fake", prompt="hello", max_tokens=12, seed=1)
        handle.wait(timeout=60)
        return handle.id


def test_events_as_json_can_be_resumed(url: str, job: str) -> None:
    whole = [json.loads(line) for line in run("events", job, "--json", "--url", url).out.splitlines()]
    assert (whole[0]["type"], whole[-1]["type"]) == ("accepted", "completed")
    rest = run("events", job, "--json", "--url", url, "--cursor", whole[1]["cursor"]).out.splitlines()
    assert [json.loads(line)["seq"] for line in rest] == [event["seq"] for event in whole[2:]]


def test_events_for_people(url: str, job: str) -> None:
    lines = run("events", job, "--url", url).out.splitlines()
    assert lines[0].split()[:2] == ["1", "accepted"]
    assert lines[-1].split()[1] == "completed"


def test_cancel(url: str) -> None:
    with Client(url) as client:
        handle = client.submit(model="fake", prompt="hello", max_tokens=2000)
    assert run("cancel", handle.id, "--url", url) == Ran(0, "cancelled\n", "")
    assert json.loads(run("cancel", handle.id, "--url", url, "--json").out)["state"] == "cancelled"


def test_an_unknown_job(url: str) -> None:
    ran = run("cancel", "job_01hzzzzzzzzzzzzzzzzzzzzzzz", "--url", url)
    assert (ran.code, ran.err.count("\n")) == (1, 1)


def test_submit_prints_the_id(url: str) -> None:
    job = run("submit", "hello", "--max-tokens", "4", "--url", url).out.strip()
    with Client(url) as client:
        assert client.job(job).wait(timeout=60).usage.completion_tokens == 4


def test_an_answer_waited_for_or_streamed_is_the_same(url: str) -> None:
    asked = ("submit", "-", "--max-tokens", "12", "--seed", "3", "--url", url)
    waited, streamed = run(*asked, "--wait", stdin=b"hello"), run(*asked, "--stream", stdin=b"hello")
    assert waited.out == streamed.out
    assert len(waited.out) == 13
    assert waited.err.startswith("job_")


def test_answers_as_json(url: str) -> None:
    asked = ("submit", "hello", "--max-tokens", "4", "--json", "--url", url)
    assert list(json.loads(run(*asked).out)) == ["id"]
    assert json.loads(run(*asked, "--wait").out)["usage"]["completion_tokens"] == 4
    assert json.loads(run(*asked, "--stream").out.splitlines()[-1])["type"] == "completed"


def test_an_unknown_model(url: str) -> None:
    ran = run("submit", "hello", "--model", "gpt-7", "--url", url)
    assert (ran.code, ran.out) == (1, "")
    assert "gpt-7" in ran.err
