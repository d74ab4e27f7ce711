"""Both clients with several gateways, some of which fail: what is asked, of whom, and what is shown."""

import json
import socket

import pytest

from headrace import AsyncClient, Client
from headrace.client import Patience
from headrace.contract import errors
from tests.unit.client.answers import BUSY, EVENTS, JOB, job, patient, sse, succeeded
from tests.unit.client.both import MakeClient
from tests.unit.client.scripted import Answer, serving

LAST_WORDS = b'event: error\ndata: {"error": {"code": "store_unavailable"}}\n\n'
SLOW = Patience(first_delay_s=600.0, longest_delay_s=600.0)
"""A pause under this would be noticed."""


@pytest.fixture
def nobody() -> str:
    """An address that refuses connections."""
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    return f"http://127.0.0.1:{port}"


def stops_after(count: int) -> Answer:
    """A gateway that is asked to stop: it says so and ends the stream in order."""
    told = sse(EVENTS[:count])
    told.body += LAST_WORDS
    return told


@pytest.mark.parametrize("lost", [sse(EVENTS[:2], cut=True), stops_after(2)], ids=["killed", "stopped"])
def test_a_stream_goes_on_at_the_next_gateway_without_a_pause(connect: MakeClient, lost: Answer) -> None:
    with serving(lost) as first, serving(sse(EVENTS[2:])) as second:
        with connect([first.url, second.url], patience=SLOW) as client:
            assert list(client.job(JOB).stream()) == EVENTS
            assert client.url == second.url
        assert [asked.headers.get("last-event-id") for asked in first.asked] == [None]
        assert [asked.headers.get("last-event-id") for asked in second.asked] == ["c2"]


def test_a_stream_that_is_lost_everywhere_in_turn_shows_everything_once(connect: MakeClient) -> None:
    here, there = (sse(EVENTS[:1], cut=True), sse(EVENTS[2:4], cut=True)), (sse(EVENTS[:2], cut=True), sse(EVENTS[4:]))
    with serving(*here) as first, serving(*there) as second:
        with connect(f"{first.url}, {second.url}/", patience=SLOW) as client:
            assert list(client.job(JOB).stream()) == EVENTS
        assert [asked.headers.get("last-event-id") for asked in first.asked] == [None, "c2"]
        assert [asked.headers.get("last-event-id") for asked in second.asked] == ["c1", "c4"]


@pytest.mark.parametrize("lost", [BUSY, Answer(502, b"<html>"), Answer(200, b"", cut=True)])
def test_a_submit_is_said_again_with_the_same_key(connect: MakeClient, lost: Answer) -> None:
    accepted = Answer(202, json.dumps({"id": JOB}).encode())
    with serving(lost) as first, serving(accepted) as second:
        with connect([first.url, second.url], patience=SLOW) as client:
            assert client.submit(model="m", prompt="p").id == JOB
        (here,), (there,) = first.asked, second.asked
    assert (here.headers["idempotency-key"], here.body) == (there.headers["idempotency-key"], there.body)


def test_a_gateway_that_is_away_is_left_to_itself(connect: MakeClient, nobody: str) -> None:
    with serving(job("running"), succeeded()) as there, connect([nobody, there.url], patience=SLOW) as client:
        assert client.fetch(JOB).state == "RUNNING"
        assert client.url == there.url
        assert client.job(JOB).wait(timeout=10).text == "a sea of mills"


def test_a_refusal_is_asked_of_nobody_else(connect: MakeClient) -> None:
    refusal = Answer(400, json.dumps({"error": {"code": "invalid_request", "message": "no"}}).encode())
    with serving(refusal) as first, serving(succeeded()) as second:
        with connect([first.url, second.url]) as client, pytest.raises(errors.InvalidRequest):
            client.fetch(JOB)
        assert second.asked == []


def test_when_all_are_away_all_are_named(connect: MakeClient, nobody: str) -> None:
    other = nobody.replace("127.0.0.1", "localhost")
    with connect([nobody, other], patience=patient(0.05)) as client:
        with pytest.raises(errors.SetupError, match=f"{nobody} or {other}: the connection was refused"):
            client.models()
        with pytest.raises(errors.SetupError, match="refused"):
            list(client.job(JOB).stream())


def test_the_addresses_come_from_the_environment(monkeypatch: pytest.MonkeyPatch, connect: MakeClient) -> None:
    with serving(Answer(503, b"")) as first, serving(succeeded()) as second:
        monkeypatch.setenv("HEADRACE_URL", f"{first.url},{second.url},")
        with connect(None, patience=SLOW) as client:
            assert client.fetch(JOB).ended
        assert len(first.asked) == 1


@pytest.mark.parametrize("urls", [[], ",", ["http://a", "localhost:8080"]])
def test_addresses_that_are_none_are_not_tried(monkeypatch: pytest.MonkeyPatch, urls: str | list[str]) -> None:
    monkeypatch.setenv("HEADRACE_URL", "nowhere")
    for make in (Client, AsyncClient):
        with pytest.raises(errors.SetupError, match="not the URL of a gateway"):
            make(urls)
