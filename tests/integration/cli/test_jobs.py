"""`submit`, `events`, `cancel` and `jobs` against a real fleet with the fake engine."""

import json

import pytest

from headrace import Client
from tests.e2e.fleet import Fleet
from tests.unit.cli.test_main import Ran, run


@pytest.fixture(scope="module")
def url(fake_fleet: Fleet) -> str:
    return fake_fleet.url


@pytest.fixture(scope="module")
def job(url: str) -> str:
    with Client(url) as client:
        handle = client.submit(model="fake", prompt="hello", max_tokens=12, seed=1, metadata={"who": "me"})
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


def test_a_table_of_jobs(url: str, job: str) -> None:
    heading, *rows = run("jobs", "--state", "ended", "--model", "fake", "--limit", "100", "--url", url).out.splitlines()
    assert heading.split() == ["JOB", "STATE", "MODEL", "CLASS", "AGE", "TOKENS"]
    row = next(row.split() for row in rows if row.startswith(job))
    assert row[1:4] == ["succeeded", "fake", "standard"]
    assert row[5] == "5+12"


def test_jobs_as_json_newest_first(url: str, job: str) -> None:
    with Client(url) as client:
        newer = client.submit(model="fake", prompt="p", max_tokens=1, job_class="background").id
    found = [json.loads(line) for line in run("jobs", "--json", "--url", url).out.splitlines()]
    assert [one["id"] for one in found if one["id"] in (newer, job)] == [newer, job]
    only = run("jobs", "--json", "--class", "background", "--limit", "1", "--url", url).out.splitlines()
    assert [json.loads(line)["class"] for line in only] == ["background"]


def test_one_job_in_full(url: str, job: str) -> None:
    shown = run("jobs", "show", job, "--url", url).out
    facts, _, text = shown.partition("\n\n")
    lines = dict(line.split(maxsplit=1) for line in facts.splitlines())
    assert (lines["id"], lines["state"], lines["tokens"], lines["who"]) == (job, "succeeded", "5 in, 12 out", "me")
    assert len(text.rstrip("\n")) == 12
    assert json.loads(run("jobs", "show", job, "--json", "--url", url).out)["id"] == job


def test_a_listing_of_a_state_there_is_not(url: str) -> None:
    ran = run("jobs", "--state", "lost", "--url", url)
    assert (ran.code, ran.out) == (1, "")
    assert "active" in ran.err


def test_a_replay_is_the_same(url: str, job: str) -> None:
    said = json.loads(run("replay", job, "--json", "--url", url).out)
    assert (said["verdict"], said["exact"], said["tokens"], said["digests"]["replay"]) == ("same", True, 12, ["fake"])
    with Client(url) as client:
        shown = client.fetch(said["replay"]).raw
    assert (shown["replay_of"], shown["metadata"]) == (job, {"who": "me", "replay_of": job})
    lines = run("jobs", "show", said["replay"], "--url", url).out.splitlines()
    assert ["replay_of", job] in [line.split() for line in lines]
    assert ["digests", "fake"] in [line.split() for line in lines]
