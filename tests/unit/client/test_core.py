"""Requests built and answers read, without a server."""

import json

import pytest

from headrace.client import core
from headrace.client.core import Reply
from headrace.client.event_reading import read_event
from headrace.client.result import outcome, read_model_ids, read_view
from headrace.contract import errors
from headrace.contract.errors import HeadraceError
from headrace.contract.events import Failed
from headrace.contract.job import State

JOB = "job_01hzzzzzzzzzzzzzzzzzzzzzzz"


def reply(status: int, body: object, **headers: str) -> Reply:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Reply(status, {name.replace("_", "-"): value for name, value in headers.items()}, content)


def submit(**fields: object) -> core.Call:
    return core.submit_call(model="m", prompt="p", sampling=fields)


def test_a_submit_always_has_an_idempotency_key() -> None:
    first, second = submit(), submit()
    assert first.headers["Idempotency-Key"] != second.headers["Idempotency-Key"]


def test_fields_that_were_not_given_are_not_sent() -> None:
    assert submit(max_tokens=None, temperature=0.0).json == {"model": "m", "prompt": "p", "temperature": 0.0}


@pytest.mark.parametrize(("messages", "prompt"), [(None, None), ([{"role": "user", "content": "x"}], "x")])
def test_a_job_is_a_chat_or_a_completion(messages: core.Chat | None, prompt: str | None) -> None:
    with pytest.raises(errors.InvalidRequest):
        core.submit_call(model="m", messages=messages, prompt=prompt)


@pytest.mark.parametrize("job_id", ["", "job_1", "../../admin", JOB.upper()])
def test_what_is_no_job_id_is_not_put_into_a_path(job_id: str) -> None:
    with pytest.raises(errors.InvalidRequest):
        core.job_call(job_id)


def test_a_cursor_goes_into_the_header() -> None:
    assert core.events_call(JOB, "c7").headers["Last-Event-ID"] == "c7"
    assert "Last-Event-ID" not in core.events_call(JOB, "").headers


def test_an_error_becomes_its_class() -> None:
    body = {"error": {"code": "context_length_exceeded", "message": "too long", "type": "t", "param": "messages"}}
    error = core.error_of(reply(400, body))
    assert isinstance(error, errors.ContextLengthExceeded)
    assert (error.message, error.param) == ("too long", "messages")


def test_a_full_queue_says_when_to_come_back() -> None:
    answer = reply(503, {"error": {"code": "queue_full", "message": "full", "param": None}}, retry_after="3")
    assert isinstance(core.error_of(answer), errors.QueueFull)
    assert core.error_of(answer).retry_after_s == 3.0
    assert core.failure_of(answer, submit()).retry_after_s == 3.0


@pytest.mark.parametrize("body", [b"<html>Bad Gateway</html>", b"", b"[]", b'{"error": "no"}', b'{"error": null}'])
def test_an_answer_of_somebody_else_is_still_an_error(body: bytes) -> None:
    error = core.error_of(reply(502, body))
    assert type(error) is HeadraceError
    assert "502" in error.message


def test_a_final_answer_is_marked() -> None:
    assert core.failure_of(reply(503, {}, x_should_retry="false"), submit()).final


def test_a_page_instead_of_json_names_the_next_step() -> None:
    with pytest.raises(HeadraceError, match="not a JSON object"):
        core.read_json(reply(200, b"<html>"))


def test_events_of_a_newer_server_are_passed_over() -> None:
    assert read_event('{"seq": 3, "type": "weather"}') is None
    assert read_event('{"error": {"code": "store_unavailable"}}') is None
    assert read_event('{"type": null}') is None
    event = read_event('{"seq": 3, "type": "failed", "error": {"code": "poison", "message": "m"}}')
    assert isinstance(event, Failed)


DELTA = {"seq": 2, "type": "delta", "choice": 0, "offset": 0, "token_ids": [1], "text": "x", "finish_reason": None}


@pytest.mark.parametrize(
    "data",
    [
        *(
            "{nonsense",
            "[1]",
            "7",
            '"x"',
            "null",
            "[" * 100_000,
            '{"type": ["delta"]}',
            '{"type": "delta", "seq": "x"}',
        ),
        '{"seq": 3, "type": "failed", "error": {}}',
        '{"seq": 3, "type": "completed", "usage": {"x": 1}}',
        '{"seq": "3", "type": "cancelled"}',
        *(json.dumps(DELTA | {name: value}) for name in ("seq", "choice", "offset") for value in (None, "x", -1, 1.5)),
        *(json.dumps(DELTA | {"token_ids": value}) for value in (None, 5, ["x"], [None])),
        *(json.dumps(DELTA | {name: value}) for name, value in (("text", 5), ("text", None), ("finish_reason", 5))),
        json.dumps(DELTA | {"logprobs": [{"no": 1}]}),
    ],
)
def test_an_event_that_was_damaged_cannot_be_read(data: str) -> None:
    assert read_event(json.dumps(DELTA)) is not None
    with pytest.raises(HeadraceError, match="event"):
        read_event(data)


@pytest.mark.parametrize(
    ("field", "value"), [("tenant", "\udcff"), ("deadline", float("nan")), ("deadline", float("inf")), ("x", object())]
)
def test_what_json_has_no_word_for_is_refused_by_name(field: str, value: object) -> None:
    with pytest.raises(errors.InvalidRequest, match=f"`{field}` cannot be sent") as caught:
        _ = core.Call("POST", "/", json={"fine": "é", field: value}).content
    assert caught.value.param == field


def test_half_a_character_is_in_no_query() -> None:
    with pytest.raises(errors.InvalidRequest, match="`model` cannot be sent"):
        core.jobs_call({"limit": "1", "model": "\ud800"})


def job(state: str, **fields: object) -> dict[str, object]:
    return {"id": JOB, "model": "m", "state": state, "usage": None, "error": None, "result": None} | fields


USAGE = {"prompt_tokens": 3, "completion_tokens": 2}


@pytest.mark.parametrize("choice", [{"message": {"role": "assistant", "content": "hi"}}, {"text": "hi"}])
def test_the_result_of_a_chat_and_of_a_completion(choice: dict[str, object]) -> None:
    choices = [{"index": 0, "finish_reason": "stop", **choice}]
    result = outcome(read_view(job("succeeded", usage=USAGE, result={"choices": choices})))
    assert (result.text, result.finish_reason) == ("hi", "stop")
    assert (result.usage.prompt_tokens, result.usage.completion_tokens) == (3, 2)


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"state": "failed", "error": {"code": "engine_error", "message": "m"}}, errors.EngineFailure),
        ({"state": "dead", "error": {"code": "poison", "message": "m"}}, errors.Poison),
        ({"state": "cancelled"}, errors.JobCancelled),
        ({"state": "expired"}, errors.DeadlineExceeded),
        ({"state": "failed"}, HeadraceError),
        ({"state": "succeeded"}, HeadraceError),
    ],
)
def test_a_job_that_did_not_succeed_raises(fields: dict[str, str], error: type[HeadraceError]) -> None:
    with pytest.raises(error):
        outcome(read_view(job(**fields)))


def test_states_are_read() -> None:
    assert read_view(job("retry_wait")).state is State.RETRY_WAIT
    assert not read_view(job("running")).ended
    assert read_view(job("dead")).ended


@pytest.mark.parametrize("body", [{}, job("dreaming"), job("failed") | {"usage": {"x": 1}}])
def test_what_is_no_job_is_said_to_be_none(body: dict[str, object]) -> None:
    with pytest.raises(HeadraceError, match="not a job"):
        read_view(body)


@pytest.mark.parametrize("body", [{}, {"data": None}, {"data": [{"name": "m"}]}])
def test_what_is_no_list_of_models_is_said_to_be_none(body: dict[str, object]) -> None:
    with pytest.raises(HeadraceError, match="not a list of models"):
        read_model_ids(body)


def test_a_submit_that_was_answered_by_something_else() -> None:
    with pytest.raises(HeadraceError, match="not a job"):
        core.read_id({"ok": True})
