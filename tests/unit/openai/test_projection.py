"""Replies read by the official SDK's own types, strictly where it matters."""

from dataclasses import replace

from openai.types import Completion, Model
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from headrace.contract.errors import ContextLengthExceeded, ErrorInfo, RateLimitExceeded
from headrace.contract.generation import FrozenRequest, Sampling, Usage
from headrace.contract.job import Job, JobClass, Kind, State
from headrace.contract.model_card import ModelCard
from headrace.openai.projection import Answer, Reply, error_body, job_object, model_list

JOB = Job(
    id="job_01",
    model="m",
    lane="m@stable",
    revision="r",
    job_class=JobClass.STANDARD,
    kind=Kind.CHAT,
    request=FrozenRequest((1, 2), Sampling(seed=1), 8),
    created_at=1_700_000_000_123,
)
USAGE = Usage(prompt_tokens=2, completion_tokens=3, cached_tokens=1)
CHAT = Reply(Kind.CHAT, "job_01", "m", 1_700_000_000_999)
CARD = ModelCard("b", "r", 100, 50, 259, (2,), None, "ref", None, created_at=5_000)


def test_chat_completion() -> None:
    data = CHAT.whole([Answer(0, "hi", "length")], USAGE)
    reply = ChatCompletion.model_validate(data, strict=True)
    assert (reply.id, reply.created, reply.model) == ("chatcmpl-01", 1_700_000_000, "m")
    assert (reply.choices[0].message.content, reply.choices[0].finish_reason) == ("hi", "length")
    assert reply.usage is not None
    assert reply.usage.prompt_tokens_details is not None
    assert (reply.usage.total_tokens, reply.usage.prompt_tokens_details.cached_tokens) == (5, 1)
    # A message that comes back as history must be accepted again.
    assert set(data["choices"][0]["message"]) == {"role", "content"}


def test_chat_chunks() -> None:
    frames = [CHAT.opening(), CHAT.text("h"), CHAT.text("i"), CHAT.closing("stop")]
    chunks = [ChatCompletionChunk.model_validate(frame) for frame in frames]
    assert [chunk.choices[0].delta.role for chunk in chunks] == ["assistant", None, None, None]
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "hi"
    assert [chunk.choices[0].finish_reason for chunk in chunks] == [None, None, None, "stop"]
    assert {chunk.id for chunk in chunks} == {"chatcmpl-01"}
    assert all("usage" not in frame for frame in frames)


def test_usage_chunk_comes_with_null_usage_before_it() -> None:
    reply = replace(CHAT, include_usage=True)
    assert reply.text("h")["usage"] is None
    last = ChatCompletionChunk.model_validate(reply.usage(USAGE))
    assert last.choices == []
    assert last.usage is not None
    assert last.usage.completion_tokens == 3


def test_text_completion() -> None:
    reply = Reply(Kind.COMPLETION, "job_01", "m", 1_000)
    whole = Completion.model_validate(reply.whole([Answer(0, "hi", "stop")], USAGE))
    assert (whole.id, whole.object, whole.choices[0].text) == ("cmpl-01", "text_completion", "hi")
    chunk = reply.text("h")
    assert (chunk["object"], chunk["choices"][0]["text"]) == ("text_completion", "h")
    assert reply.closing("stop")["choices"][0] == {"index": 0, "text": "", "logprobs": None, "finish_reason": "stop"}


def test_job_object() -> None:
    waiting = job_object(JOB)
    assert (waiting["state"], waiting["class"], waiting["result"], waiting["error"]) == (
        "accepted",
        "standard",
        None,
        None,
    )
    assert waiting["created_at"] == JOB.created_at
    ended = replace(JOB, state=State.DEAD, error=ErrorInfo("poison", "It killed three workers."), usage=USAGE)
    dead = job_object(ended)
    assert (dead["state"], dead["error"]["code"], dead["error"]["type"]) == ("dead", "poison", "server_error")
    assert dead["usage"]["total_tokens"] == 5
    answer = Answer(0, "hi", "stop", token_ids=(4, 2))
    (done,) = job_object(replace(JOB, state=State.SUCCEEDED), [answer])["result"]["choices"]
    (told,) = CHAT.whole([answer], USAGE)["choices"]
    assert done == told | {"token_ids": (4, 2)}


def test_each_model_is_listed_once() -> None:
    data = model_list([CARD, replace(CARD, id="a"), replace(CARD, revision="r2", created_at=9_000, context_length=40)])
    assert [Model.model_validate(model).id for model in data["data"]] == ["a", "b"]
    assert (data["data"][1]["created"], data["data"][1]["max_tokens_in_all"]) == (9, 40)


def test_error_bodies() -> None:
    error = ContextLengthExceeded("Too long.", param="messages", next_step="Shorten it.")
    assert error_body(error) == {
        "error": {
            "message": "Too long. Shorten it.",
            "type": "invalid_request_error",
            "param": "messages",
            "code": "context_length_exceeded",
        }
    }
    assert error_body(RateLimitExceeded("Slow down."))["error"]["type"] == "rate_limit_error"
    assert error_body(ErrorInfo("no_progress", "Silent."))["error"] == {
        "message": "Silent.",
        "type": "server_error",
        "param": None,
        "code": "no_progress",
    }
