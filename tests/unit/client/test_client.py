"""Both clients against a real socket: repeats, resumes, gives up."""

import json
import socket
import time
from datetime import UTC, datetime
from urllib.parse import parse_qs, urlsplit

import pytest

from headrace import AsyncClient, Client
from headrace.client import Patience
from headrace.contract import errors
from headrace.contract.job import State
from tests.unit.client.answers import BUSY, EVENTS, JOB, OTHER, job, patient, sse, succeeded
from tests.unit.client.both import MakeClient
from tests.unit.client.scripted import Answer, serving


def test_a_cut_stream_goes_on_at_its_cursor(connect: MakeClient) -> None:
    with serving(sse(EVENTS[:2], cut=True), BUSY, sse(EVENTS[2:3]), sse(EVENTS[3:])) as script:
        with connect(script.url, patience=patient()) as client:
            assert list(client.job(JOB).stream()) == EVENTS
        cursors = [asked.headers.get("last-event-id") for asked in script.asked]
    assert cursors == [None, "c2", "c2", "c3"]


def test_a_server_that_ignores_the_cursor_repeats_nothing(connect: MakeClient) -> None:
    with serving(sse(EVENTS[:3], cut=True), sse(EVENTS)) as script, connect(script.url, patience=patient()) as client:
        assert "".join(client.job(JOB).text_stream()) == "a sea of mills"


def test_a_hole_is_read_again(connect: MakeClient) -> None:
    with serving(sse([*EVENTS[:2], *EVENTS[3:]]), sse(EVENTS[2:])) as script:
        with connect(script.url, patience=patient()) as client:
            assert list(client.job(JOB).stream()) == EVENTS
        assert [asked.headers.get("last-event-id") for asked in script.asked] == [None, "c2"]


def test_a_cursor_behind_the_end_gives_nothing_and_ends(connect: MakeClient) -> None:
    with serving(sse([]), sse([]), succeeded()) as script, connect(script.url, patience=patient()) as client:
        assert list(client.job(JOB).stream(cursor="c5")) == []


def test_a_silent_server_is_given_up(connect: MakeClient) -> None:
    with serving(Answer(502, b"bad gateway")) as script, connect(script.url, patience=patient(0.5)) as client:
        with pytest.raises(errors.HeadraceError, match="502"):
            list(client.job(JOB).stream())
        assert len(script.asked) > 1


def test_a_connection_that_always_breaks_is_given_up(connect: MakeClient) -> None:
    with (
        serving(sse([], cut=True)) as script,
        connect(script.url, patience=patient(0.05)) as client,
        pytest.raises(errors.NoProgress, match=JOB),
    ):
        list(client.job(JOB).stream())


@pytest.mark.parametrize(
    ("status", "code", "error"),
    [(404, "job_not_found", errors.JobNotFound), (410, "journal_expired", errors.JournalExpired)],
)
def test_a_refused_stream_is_not_tried_again(
    connect: MakeClient, status: int, code: str, error: type[errors.HeadraceError]
) -> None:
    answer = Answer(status, json.dumps({"error": {"code": code, "message": "m"}}).encode())
    with serving(answer) as script, connect(script.url, patience=patient()) as client:
        with pytest.raises(error):
            list(client.job(JOB).stream())
        assert len(script.asked) == 1


def test_a_repeated_submit_says_the_same_key(connect: MakeClient) -> None:
    accepted = Answer(202, json.dumps({"id": JOB}).encode())
    with serving(BUSY, Answer(200, b"", cut=True), accepted) as script:
        with connect(script.url, "secret", patience=patient()) as client:
            handle = client.submit(model="m", prompt="p", job_class="batch", deadline_seconds=9, metadata={"a": "b"})
        keys = {asked.headers["idempotency-key"] for asked in script.asked}
        bodies = {asked.body for asked in script.asked}
        assert (handle.id, len(script.asked), len(keys), len(bodies)) == (JOB, 3, 1, 1)
        assert json.loads(bodies.pop()) == {
            "model": "m",
            "prompt": "p",
            "class": "batch",
            "deadline_seconds": 9,
            "metadata": {"a": "b"},
        }
        assert {asked.headers["authorization"] for asked in script.asked} == {"Bearer secret"}


def test_a_refused_submit_raises_at_once(connect: MakeClient) -> None:
    body = {"error": {"code": "unknown_parameter", "message": "no", "param": "bogus"}}
    with serving(Answer(400, json.dumps(body).encode())) as script, connect(script.url) as client:
        with pytest.raises(errors.UnknownParameter) as caught:
            client.submit(model="m", prompt="p", bogus=1)
        assert (caught.value.param, len(script.asked)) == ("bogus", 1)


def test_wait_asks_until_the_end(connect: MakeClient) -> None:
    with serving(job("queued"), job("running"), succeeded()) as script, connect(script.url) as client:
        result = client.job(JOB).wait(timeout=10)
    assert (result.text, result.usage.completion_tokens) == ("a sea of mills", 4)


def test_wait_has_a_limit_and_the_job_goes_on(connect: MakeClient) -> None:
    with serving(job("running")) as script, connect(script.url) as client:
        with pytest.raises(TimeoutError, match="goes on"):
            client.job(JOB).wait(timeout=0.05)
        assert {asked.method for asked in script.asked} == {"GET"}


def test_the_error_of_a_job_is_raised_by_wait_and_by_text_stream(connect: MakeClient) -> None:
    error = {"code": "poison", "message": "killed three workers"}
    with serving(job("dead", error=error)) as script, connect(script.url) as client, pytest.raises(errors.Poison):
        client.job(JOB).wait()
    data = json.dumps({"seq": 1, "type": "failed", "error": error})
    answer = Answer(200, f"id: c1\ndata: {data}\n\n".encode())
    with serving(answer) as script, connect(script.url) as client, pytest.raises(errors.Poison):
        list(client.job(JOB).text_stream())


def test_as_completed_gives_each_once_and_a_lost_one_does_not_hold_the_others(connect: MakeClient) -> None:
    lost = Answer(404, json.dumps({"error": {"code": "job_not_found", "message": "m"}}).encode())
    with serving(lost, succeeded(OTHER)) as script, connect(script.url) as client:
        handles = [client.job(JOB), client.job(OTHER)]
        assert [handle.id for handle in client.as_completed(handles, timeout=10)] == [JOB, OTHER]


def test_as_completed_has_a_limit(connect: MakeClient) -> None:
    with serving(job("running")) as script, connect(script.url) as client, pytest.raises(TimeoutError, match="1 jobs"):
        list(client.as_completed([client.job(JOB)], timeout=0.0))


def test_nobody_there_is_said_in_one_line(connect: MakeClient) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    with (
        connect(f"http://127.0.0.1:{port}", patience=patient(0.02)) as client,
        pytest.raises(errors.SetupError, match="refused") as caught,
    ):
        client.models()
    assert "headrace up" in caught.value.explain()
    assert "\n" not in caught.value.explain()


def test_the_address_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADRACE_URL", "http://127.0.0.1:9/")
    with Client() as client, Client("http://127.0.0.1:10") as given:
        assert (client.url, given.url) == ("http://127.0.0.1:9", "http://127.0.0.1:10")
    assert AsyncClient().url == "http://127.0.0.1:9"


def test_what_is_no_http_url_is_not_tried() -> None:
    for make in (Client, AsyncClient):
        with pytest.raises(errors.SetupError, match="localhost:8080"):
            make("localhost:8080")


def test_an_address_where_nobody_ever_answered_is_given_up_early(connect: MakeClient) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    patience = Patience(silence_s=60.0, nobody_s=0.0)
    with connect(f"http://127.0.0.1:{port}", patience=patience) as client:
        with pytest.raises(errors.SetupError, match="refused"):
            client.models()
        with pytest.raises(errors.SetupError, match="refused"):
            list(client.job(JOB).stream())


def test_a_gateway_that_answered_once_is_waited_for(connect: MakeClient) -> None:
    patience = Patience(silence_s=0.2, nobody_s=0.0, first_delay_s=0.01, longest_delay_s=0.02)
    once = job("running")
    once.headers["connection"] = "close"
    with serving(once) as script:
        client = connect(script.url, patience=patience)
        client.fetch(JOB)
    began = time.monotonic()
    with client, pytest.raises(errors.SetupError, match="refused"):
        client.fetch(JOB)
    assert time.monotonic() - began > 0.1


def test_an_answer_waited_for_at_submit_needs_no_other_call(connect: MakeClient) -> None:
    with serving(succeeded()) as script, connect(script.url) as client:
        assert client.submit(model="m", prompt="p", wait=7.6).wait().text == "a sea of mills"
        assert [asked.headers.get("prefer") for asked in script.asked] == ["wait=8"]


def page(ids: list[str], *, more: bool) -> Answer:
    data = [{"id": one, "model": "m", "state": "queued", "usage": None, "error": None} for one in ids]
    return Answer(200, json.dumps({"object": "list", "data": data, "has_more": more, "last_id": ids[-1]}).encode())


def test_a_listing_is_read_page_by_page_as_it_is_taken(connect: MakeClient) -> None:
    with serving(page([JOB], more=True), page([OTHER], more=False)) as script, connect(script.url) as client:
        jobs = client.jobs(state=["queued", State.RUNNING], model="a/b", job_class="batch", metadata={"k": "v w"})
        assert next(jobs).id == JOB
        assert len(script.asked) == 1
        assert [one.id for one in jobs] == [OTHER]
        first, second = (parse_qs(urlsplit(asked.path).query) for asked in script.asked)
    assert first == {
        "state": ["queued,running"],
        "model": ["a/b"],
        "class": ["batch"],
        "metadata[k]": ["v w"],
        "limit": ["100"],
    }
    assert second == first | {"after": [JOB]}


def test_a_listing_has_a_limit(connect: MakeClient) -> None:
    since = datetime(2026, 1, 1, tzinfo=UTC)
    with serving(page([JOB, OTHER], more=True)) as script, connect(script.url) as client:
        assert len(list(client.jobs(limit=2, created_after=since, created_before=5))) == 2
        assert len(script.asked) == 1
        query = parse_qs(urlsplit(script.asked[0].path).query)
    assert query == {"limit": ["2"], "created_after": ["1767225600000"], "created_before": ["5"]}


def test_a_model_and_what_it_can_hold(connect: MakeClient) -> None:
    shown = {"id": "a/b", "context_length": 2048, "max_tokens_in_all": 1024, "capabilities": ["chat"]}
    with serving(Answer(200, json.dumps(shown).encode())) as script, connect(script.url) as client:
        assert client.model("a/b").max_tokens_in_all == 1024
        assert script.asked[0].path == "/v1/models/a%2Fb"


def test_an_answer_that_is_no_listing_is_said(connect: MakeClient) -> None:
    odd = Answer(200, b'{"id": 7, "data": 7}')
    with serving(odd) as script, connect(script.url) as client:
        with pytest.raises(errors.HeadraceError, match="page of jobs"):
            list(client.jobs())
        with pytest.raises(errors.HeadraceError, match="not a model"):
            client.model("m")


def test_a_replay_is_asked_for_with_a_key(connect: MakeClient) -> None:
    accepted = Answer(202, json.dumps({"id": OTHER}).encode())
    with serving(Answer(200, b"", cut=True), accepted) as script, connect(script.url, patience=patient()) as client:
        assert client.replay(JOB, any_digest=True, job_class="batch", deadline_seconds=9).id == OTHER
        first, second = script.asked
    assert (second.method, second.path) == ("POST", f"/v1/jobs/{JOB}/replay")
    assert json.loads(second.body) == {"any_digest": True, "class": "batch", "deadline_seconds": 9}
    assert first.headers["idempotency-key"] == second.headers["idempotency-key"]


def test_who_is_alive(connect: MakeClient) -> None:
    workers = [{"id": "w_1", "digest": "d"}]
    with serving(Answer(200, json.dumps({"workers": workers}).encode())) as script, connect(script.url) as client:
        assert client.workers() == workers
