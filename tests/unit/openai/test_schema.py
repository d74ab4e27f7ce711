"""Every refusal names its parameter the way OpenAI does, and nothing is let through or ignored."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from headrace.contract.errors import HeadraceError, InvalidRequest, UnknownParameter
from headrace.openai.schema import ChatBody, CompletionBody, JobBody, parse, read_json

CHAT: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
PROMPT: dict[str, Any] = {"model": "m", "prompt": "hi"}


def said(content: Any, **more: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": content, **more}]}


def refused(model: type[ChatBody | CompletionBody | JobBody], body: dict[str, Any]) -> HeadraceError:
    with pytest.raises(HeadraceError) as caught:
        parse(model, body)
    assert caught.value.status == 400
    assert len(caught.value.message) < 500
    return caught.value


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"temperature": 0},
        {"temperature": 2, "top_p": 1, "top_k": -1, "min_p": 1, "repetition_penalty": 10},
        {"frequency_penalty": -2, "presence_penalty": 2.0},
        {"seed": -(2**63)},
        {"seed": 2**63 - 1},
        {"stop": "a"},
        {"stop": ["a", "b", "c", "d"]},
        {"stop": []},
        {"max_tokens": 1, "max_completion_tokens": 1},
        {"stream": True, "stream_options": {"include_usage": True}},
        {"user": "u", "metadata": {"k" * 64: "v" * 512}},
        {"n": 1},
        {"logprobs": True},
        {"logprobs": True, "top_logprobs": 20},
        {"logprobs": False},
        dict.fromkeys(("temperature", "stop", "seed", "max_tokens", "n", "stream", "stream_options", "metadata")),
        said([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]),
        {"messages": [{"role": role, "content": ""} for role in ("system", "developer", "user", "assistant")]},
    ],
)
def test_accepted(more: dict[str, Any]) -> None:
    parse(ChatBody, CHAT | more)


@pytest.mark.parametrize(
    ("more", "param"),
    [
        ({"temperature": -0.1}, "temperature"),
        ({"temperature": 2.1}, "temperature"),
        ({"temperature": "1"}, "temperature"),
        ({"temperature": True}, "temperature"),
        ({"temperature": float("nan")}, "temperature"),
        ({"temperature": float("inf")}, "temperature"),
        ({"temperature": 10**400}, "temperature"),
        ({"top_p": 0}, "top_p"),
        ({"top_p": 1.01}, "top_p"),
        ({"top_k": -2}, "top_k"),
        ({"top_k": 1.5}, "top_k"),
        ({"top_k": 2**70}, "top_k"),
        ({"min_p": -1}, "min_p"),
        ({"frequency_penalty": 3}, "frequency_penalty"),
        ({"presence_penalty": -3}, "presence_penalty"),
        ({"repetition_penalty": 0}, "repetition_penalty"),
        ({"seed": 2**63}, "seed"),
        ({"seed": True}, "seed"),
        ({"seed": 1.0}, "seed"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": 1.8446744073709552e19}, "max_tokens"),
        ({"max_tokens": False}, "max_tokens"),
        ({"max_completion_tokens": -1}, "max_completion_tokens"),
        ({"max_tokens": 1, "max_completion_tokens": 2}, "max_tokens"),
        ({"n": 0}, "n"),
        ({"logprobs": 1}, "logprobs"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
        ({"logprobs": False, "top_logprobs": 1}, "top_logprobs"),
        ({"top_logprobs": 0}, "top_logprobs"),
        ({"n": True}, "n"),
        ({"stop": ""}, "stop"),
        ({"stop": 7}, "stop"),
        ({"stop": ["a", ""]}, "stop[1]"),
        ({"stop": ["a"] * 5}, "stop"),
        ({"stop": "x" * 1_025}, "stop"),
        ({"stream": "yes"}, "stream"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"user": 1}, "user"),
        ({"metadata": []}, "metadata"),
        ({"metadata": {"a": 1}}, "metadata.a"),
        ({"metadata": {"k" * 65: "v"}}, "metadata." + "k" * 65),
        ({"metadata": {"a": "v" * 513}}, "metadata.a"),
        ({"metadata": {str(i): "" for i in range(17)}}, "metadata"),
        ({"model": ""}, "model"),
        ({"model": None}, "model"),
        ({"messages": []}, "messages"),
        ({"messages": None}, "messages"),
        ({"messages": "hi"}, "messages"),
        ({"messages": ["hi"]}, "messages[0]"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "user"}]}, "messages[0].content"),
        (said(None), "messages[0].content"),
        (said(7), "messages[0].content"),
        (said([]), "messages[0].content"),
        (said("\ud800"), "messages[0].content"),
        (said([{"type": "image_url", "image_url": {"url": "x"}}]), "messages[0].content[0].type"),
        (said([{"type": "text", "text": "a"}, {"type": "text", "text": 1}]), "messages[0].content[1].text"),
    ],
)
def test_bad_values(more: dict[str, Any], param: str) -> None:
    error = refused(ChatBody, CHAT | more)
    assert (error.code, error.param) == ("invalid_request", param)


@pytest.mark.parametrize(
    ("more", "param"),
    [
        ({"n": 2}, "n"),
        ({"echo": True}, "echo"),
        ({"tools": []}, "tools"),
        ({"response_format": {"type": "text"}}, "response_format"),
        ({"prompt": "hi"}, "prompt"),
        ({"class": "batch"}, "class"),
        ({"job_class": "batch"}, "job_class"),
        ({"stream": True, "stream_options": {"include_obfuscation": False}}, "stream_options.include_obfuscation"),
        (said("hi", name="x"), "messages[0].name"),
    ],
)
def test_unknown_parameters(more: dict[str, Any], param: str) -> None:
    error = refused(ChatBody, CHAT | more)
    assert isinstance(error, UnknownParameter)
    assert error.param == param


@pytest.mark.parametrize("field", ["model", "messages"])
def test_missing(field: str) -> None:
    error = refused(ChatBody, {name: value for name, value in CHAT.items() if name != field})
    assert (error.param, error.message) == (field, f"Missing required parameter: `{field}`.")


@pytest.mark.parametrize("prompt", ["a", ["a", "b"], [0, 258], [[1], [2, 3]], ["a"] * 128])
def test_prompts(prompt: Any) -> None:
    assert parse(CompletionBody, {"model": "m", "prompt": prompt}).prompt == prompt


@pytest.mark.parametrize(
    ("prompt", "param", "reason"),
    [
        ("", "prompt", "at least 1 character"),
        ([], "prompt", "not be empty"),
        ([""], "prompt[0]", "at least 1 character"),
        ([[]], "prompt[0]", "at least 1 item"),
        ([[1], []], "prompt[1]", "at least 1 item"),
        (["a", 1], "prompt[1]", "string"),
        ([1, "a"], "prompt[1]", "integer"),
        ([1, True], "prompt[1]", "integer"),
        ([1.0], "prompt[0]", "integer"),
        ([-1], "prompt[0]", "greater than or equal to 0"),
        ([[1], [2**40]], "prompt[1][0]", "less than or equal to"),
        ([[1], "a"], "prompt[1]", "list"),
        (["a"] * 129, "prompt", "at most 128"),
        ([None], "prompt[0]", "integer"),
        (["\ud800"], "prompt[0]", "unicode"),
        (1, "prompt", "a list of token ids"),
        (None, "prompt", "a list of token ids"),
        ({}, "prompt", "a list of token ids"),
    ],
)
def test_bad_prompts(prompt: Any, param: str, reason: str) -> None:
    error = refused(CompletionBody, {"model": "m", "prompt": prompt})
    assert (error.code, error.param) == ("invalid_request", param)
    assert reason in error.message


@pytest.mark.parametrize(
    ("more", "param"),
    [
        ({"best_of": 2}, "best_of"),
        ({"suffix": "x"}, "suffix"),
        ({"top_logprobs": 1}, "top_logprobs"),
        ({"max_completion_tokens": 1}, "max_completion_tokens"),
        ({"logprobs": 6}, "logprobs"),
        ({"logprobs": -1}, "logprobs"),
        ({"logprobs": True}, "logprobs"),
        ({"echo": 1}, "echo"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": 0, "echo": True}, "max_tokens"),
        ({"max_tokens": 0, "logprobs": 0}, "max_tokens"),
        ({"n": 2}, "n"),
    ],
)
def test_bad_completions(more: dict[str, Any], param: str) -> None:
    assert refused(CompletionBody, PROMPT | more).param == param


def test_a_prompt_may_be_scored_without_an_answer() -> None:
    for body in (CompletionBody, JobBody):
        parsed = parse(body, PROMPT | {"max_tokens": 0, "echo": True, "logprobs": 0})
        assert parsed.max_tokens == 0


def test_a_job_is_a_chat_or_a_completion() -> None:
    body = parse(JobBody, PROMPT | {"class": "batch", "deadline_seconds": 1.5, "metadata": {"a": "b"}})
    assert (body.job_class, body.deadline_seconds) == ("batch", 1.5)
    assert parse(JobBody, CHAT | {"logprobs": True, "top_logprobs": 3}).messages is not None
    assert parse(JobBody, {"model": "m", "prompt": [1, 2], "logprobs": 5, "echo": True}).prompt == [1, 2]


@pytest.mark.parametrize(
    ("body", "param"),
    [
        (CHAT | PROMPT, "messages"),
        ({"model": "m"}, "messages"),
        (PROMPT | {"class": "urgent"}, "class"),
        (PROMPT | {"deadline_seconds": 0}, "deadline_seconds"),
        (PROMPT | {"deadline_seconds": 30 * 86_400 + 1}, "deadline_seconds"),
        (PROMPT | {"deadline_seconds": "1"}, "deadline_seconds"),
        (PROMPT | {"stream": True}, "stream"),
        (PROMPT | {"job_class": "batch"}, "job_class"),
        (PROMPT | {"logprobs": True}, "logprobs"),
        (PROMPT | {"logprobs": 6}, "logprobs"),
        (PROMPT | {"logprobs": 1, "top_logprobs": 1}, "top_logprobs"),
        (CHAT | {"logprobs": 1}, "logprobs"),
        (CHAT | {"logprobs": "yes"}, "logprobs"),
        (CHAT | {"echo": True}, "echo"),
        ({"model": "m", "prompt": ["a"]}, "prompt"),
        ({"model": "m", "prompt": [[1]]}, "prompt"),
        ({"model": "m", "prompt": []}, "prompt"),
    ],
)
def test_bad_jobs(body: dict[str, Any], param: str) -> None:
    assert refused(JobBody, body).param == param


def test_many_bad_messages_cost_one_error() -> None:
    with pytest.raises(ValidationError) as caught:
        ChatBody.model_validate(CHAT | {"messages": [0] * 4_000})
    assert caught.value.error_count() == 1


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
NAMES = st.sampled_from([*JobBody.model_fields, "class", "role", "content", "type", "text", "logprobs"]) | st.text()


@given(st.dictionaries(NAMES, ANYTHING | st.lists(st.dictionaries(NAMES, ANYTHING), max_size=2), max_size=6))
def test_no_body_raises_anything_but_a_refusal(body: dict[str, Any]) -> None:
    for model in (ChatBody, CompletionBody, JobBody):
        refusal: HeadraceError | None = None
        try:
            parse(model, CHAT | body)
        except HeadraceError as error:
            refusal = error
        assert refusal is None or (refusal.status == 400 and refusal.param is not None)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "not valid JSON"),
        (b"{", "not valid JSON"),
        (b'{"a": NaN}', "not valid JSON"),
        (b'{"a": 1e999}', "not valid JSON"),
        (b'{"a": "\xff"}', "not valid JSON"),
        (b'{"a": "\\ud800"}', "not valid JSON"),
        (b"[" * 100_000, "not valid JSON"),
        (b"[]", "not an array"),
        (b"null", "not null"),
        (b'"a"', "not a string"),
        (b"1", "not a number"),
        (b"true", "not a boolean"),
    ],
)
def test_what_is_no_json_object(body: bytes, reason: str) -> None:
    with pytest.raises(InvalidRequest, match=reason):
        read_json(body)
