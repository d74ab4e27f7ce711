"""Both clients and what no gateway says: damaged events, pages of a proxy, bodies that are not the gzip they say."""

import json
from typing import Any

import pytest

from headrace.client import Client, Patience
from headrace.contract import errors
from headrace.contract.events import Event
from tests.unit.client.answers import EVENTS, JOB, patient, sse, succeeded
from tests.unit.client.both import MakeClient
from tests.unit.client.scripted import Answer, serving

SLOW = Patience(first_delay_s=600.0, longest_delay_s=600.0)
"""A pause under this would be noticed."""
HTML = Answer(200, b"<html>log in</html>", {"content-type": "text/html"})
ZIPPED = Answer(200, b"abcd", {"content-encoding": "gzip", "content-type": "application/json"})
ODD = [
    HTML,
    ZIPPED,
    Answer(204, b""),
    Answer(301, b"", {"location": "/"}),
    Answer(200, b"[]"),
    Answer(200, b"{}"),
    Answer(200, b'{"id'),
    Answer(502, b"abcd", {"content-encoding": "gzip"}),
]
NAMES = ["html", "zipped", "204", "301", "list", "empty", "short", "zipped 502"]


def damaged(good: int, data: str) -> Answer:
    """A stream whose events are fine up to one of them."""
    answer = sse(EVENTS[:good])
    answer.body += f"id: c99\ndata: {data}\n\n".encode() + sse(EVENTS[good:]).body
    return answer


@pytest.mark.parametrize(
    "data", ['{"type:"delta"', "[1]", '{"type": "delta", "seq": "x"}', json.dumps({"seq": None, "type": "cancelled"})]
)
def test_a_damaged_event_is_asked_for_again_at_the_next_gateway(connect: MakeClient, data: str) -> None:
    with serving(damaged(2, data)) as first, serving(sse(EVENTS[2:])) as second:
        with connect([first.url, second.url], patience=SLOW) as client:
            assert list(client.job(JOB).stream()) == EVENTS
        assert [asked.headers.get("last-event-id") for asked in second.asked] == ["c2"]


def test_a_stream_that_is_always_damaged_is_given_up(connect: MakeClient) -> None:
    with serving(damaged(2, "{"), damaged(0, "{")) as script, connect(script.url, patience=patient()) as client:
        shown: list[Event] = []
        with pytest.raises(errors.HeadraceError, match=f"events of {JOB} cannot be read at http"):
            shown.extend(client.job(JOB).stream())
        assert shown == EVENTS[:2]
        assert 1 < len(script.asked) < 12


@pytest.mark.parametrize("odd", [HTML, ZIPPED, Answer(204, b"")], ids=["html", "zipped", "204"])
def test_a_stream_that_is_none_goes_on_elsewhere_or_is_given_up(connect: MakeClient, odd: Answer) -> None:
    with serving(odd) as first, serving(sse(EVENTS)) as second:
        with connect([first.url, second.url], patience=SLOW) as client:
            assert list(client.job(JOB).stream()) == EVENTS
        with (
            connect(first.url, patience=patient(0.05)) as client,
            pytest.raises(errors.SetupError, match="No gateway answers"),
        ):
            list(client.job(JOB).stream())


@pytest.mark.parametrize("odd", ODD, ids=NAMES)
def test_what_is_safe_to_repeat_is_said_to_the_next_gateway(connect: MakeClient, odd: Answer) -> None:
    with serving(odd) as first, serving(succeeded()) as second:
        with connect([first.url, second.url], patience=SLOW) as client:
            assert client.fetch(JOB).ended
        with connect([first.url, second.url], patience=SLOW) as client:
            assert client.submit(model="m", prompt="p").id == JOB
        assert len(first.asked) == len(second.asked) == 2


@pytest.mark.parametrize("odd", ODD, ids=NAMES)
def test_what_is_not_is_said_once_and_the_error_is_clear(odd: Answer) -> None:
    with serving(odd) as first, serving(succeeded()) as second:
        with Client([first.url, second.url], patience=SLOW) as client, pytest.raises(errors.HeadraceError) as caught:
            client.dlq.redrive(limit=3)
        assert "No gateway answers" in caught.value.message
        assert (len(first.asked), len(second.asked)) == (1, 0)


def test_garbage_at_an_address_where_nobody_ever_answered_is_given_up_early(connect: MakeClient) -> None:
    with serving(HTML) as script, connect(script.url, patience=Patience(nobody_s=0.0)) as client:
        with pytest.raises(errors.SetupError, match=r"HTTP 200\) is not a JSON object"):
            client.fetch(JOB)
        with pytest.raises(errors.SetupError, match="text/html"):
            list(client.job(JOB).stream())


@pytest.mark.parametrize(("name", "value"), [("user", "\ud800"), ("temperature", float("nan"))])
def test_what_cannot_be_written_is_sent_to_nobody(connect: MakeClient, name: str, value: Any) -> None:
    with serving(succeeded()) as script, connect(script.url) as client:
        with pytest.raises(errors.InvalidRequest, match=f"`{name}`"):
            client.submit(model="m", prompt="p", **{name: value})
        assert script.asked == []
