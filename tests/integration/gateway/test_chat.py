"""The OpenAI routes through the unmodified `openai` SDK, and as raw bytes where the shape itself matters."""

import http.client
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import httpx2
import pytest
from openai import APIError, APIStatusError, NotFoundError, OpenAI

from headrace.contract.errors import ErrorInfo
from headrace.contract.job import Job, State
from tests.integration.gateway.scripted_worker import MODEL, ScriptedWorker, wait_for

QUESTION: Any = [{"role": "user", "content": "Say it."}]
CHAT = {"model": MODEL, "messages": QUESTION}
PIECES = ("Na", "ïve ", "🙂", " done")


@contextmanager
def meanwhile(work: Callable[[], object]) -> Iterator[None]:
    """Run a worker's part beside the client's."""
    failures: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as error:  # noqa: BLE001 - raised below, in the test's own thread
            failures.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    yield
    thread.join(15)
    assert not thread.is_alive()
    if failures:
        raise failures[0]


def test_a_chat_in_one_body(openai: OpenAI, worker: ScriptedWorker) -> None:
    with meanwhile(lambda: worker.run(*PIECES)):
        raw = openai.chat.completions.with_raw_response.create(model=MODEL, messages=QUESTION)
    chat = raw.parse()
    assert chat.choices[0].message.content == "".join(PIECES)
    assert chat.choices[0].finish_reason == "stop"
    assert chat.usage is not None
    assert chat.usage.completion_tokens == len("".join(PIECES).encode())
    assert chat.model == MODEL
    job = worker.queue.get(raw.headers["x-headrace-job"])
    assert job is not None
    assert job.job_class == "interactive"


@pytest.mark.parametrize("include_usage", [True, False])
def test_a_chat_as_a_stream(openai: OpenAI, worker: ScriptedWorker, include_usage: bool) -> None:
    options: Any = {"stream_options": {"include_usage": True}} if include_usage else {}
    worker.cached_tokens = 5
    with meanwhile(lambda: worker.run(*PIECES)):
        parts = list(openai.chat.completions.create(model=MODEL, messages=QUESTION, stream=True, **options))
    said = [part for part in parts if part.choices]
    assert "".join(part.choices[0].delta.content or "" for part in said) == "".join(PIECES)
    assert said[0].choices[0].delta.role == "assistant"
    assert [part.choices[0].finish_reason for part in said] == [None] * (len(said) - 1) + ["stop"]
    usages = [part.usage for part in parts if part.usage]
    assert [usage.completion_tokens for usage in usages] == ([16] if include_usage else [])
    details = [usage.prompt_tokens_details for usage in usages]
    assert [each.cached_tokens for each in details if each] == ([5] if include_usage else [])


def test_a_completion(openai: OpenAI, worker: ScriptedWorker) -> None:
    with meanwhile(lambda: worker.run("upon ", "a time")):
        whole = openai.completions.create(model=MODEL, prompt="once ")
    with meanwhile(lambda: worker.run("upon ", "a time")):
        parts = list(openai.completions.create(model=MODEL, prompt="once ", stream=True))
    assert whole.choices[0].text == "".join(part.choices[0].text for part in parts) == "upon a time"


def test_the_stream_has_no_ids_and_its_pings_are_single_lines(client: httpx2.Client, worker: ScriptedWorker) -> None:
    raw, worked = b"", None
    with client.stream("POST", "/v1/chat/completions", json={**CHAT, "stream": True}) as reply:
        assert reply.headers["content-type"].startswith("text/event-stream")
        for chunk in reply.iter_raw():  # nobody works yet: after 0.6 s the status is 200 and pings begin
            raw += chunk
            if b": ping\n: ping\n" in raw and not worked:
                worked = worker.run(*PIECES)
    assert b"\n\n: ping\n: ping\ndata: {" in raw
    assert b": ping\n\n" not in raw
    assert b"id:" not in raw
    assert b"retry:" not in raw
    assert raw.endswith(b"data: [DONE]\n\n")


def test_pings_do_not_disturb_the_sdk(openai: OpenAI, worker: ScriptedWorker) -> None:
    parts = openai.chat.completions.create(model=MODEL, messages=QUESTION, stream=True)
    job = worker.claim()
    text = next(parts).choices[0].delta.content or ""
    for piece in PIECES:
        wait_for(_silence(0.25))
        worker.say(job, piece)
        text += next(parts).choices[0].delta.content or ""
    worker.say(job, "", "stop")
    worker.succeed(job)
    assert text + "".join(part.choices[0].delta.content or "" for part in parts) == "".join(PIECES)


def _silence(seconds: float) -> Callable[[], bool]:
    """True once so much time has passed: two pings' worth."""
    until = time.monotonic() + seconds
    return lambda: time.monotonic() >= until


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(
    ("error", "status", "kind", "again"),
    [
        (ErrorInfo("engine_error", "It broke.", retryable=True), 500, "server_error", None),
        (ErrorInfo("revision_gone", "Gone."), 409, "invalid_request_error", "false"),
        (ErrorInfo("grammar_error", "Bad grammar."), 400, "invalid_request_error", "false"),
        (ErrorInfo("poison", "It kills engines."), 500, "server_error", "false"),
    ],
)
def test_a_job_that_fails_at_once_is_a_proper_error(
    openai: OpenAI, worker: ScriptedWorker, stream: bool, error: ErrorInfo, status: int, kind: str, again: str | None
) -> None:
    with meanwhile(lambda: worker.fail(worker.claim(), error)), pytest.raises(APIStatusError) as caught:
        openai.chat.completions.create(model=MODEL, messages=QUESTION, stream=stream)
    assert (caught.value.status_code, caught.value.code, caught.value.type) == (status, error.code, kind)
    assert error.message in caught.value.message
    assert caught.value.response.headers.get("x-should-retry") == again
    assert caught.value.response.headers["x-headrace-job"].startswith("job_")


def test_a_job_that_fails_in_the_middle_ends_the_stream_with_an_error(openai: OpenAI, worker: ScriptedWorker) -> None:
    def work() -> None:
        job = worker.claim()
        worker.say(job, "so far")
        worker.fail(job, ErrorInfo("engine_error", "It broke."))

    with meanwhile(work):
        parts = openai.chat.completions.create(model=MODEL, messages=QUESTION, stream=True)
        text = ""
        with pytest.raises(APIError) as caught:  # noqa: PT012 - the error comes after the text, out of the same loop
            for part in parts:
                text += part.choices[0].delta.content or ""
    assert text == "so far"
    assert (caught.value.code, caught.value.type) == ("engine_error", "server_error")


def test_a_job_cancelled_elsewhere_is_an_error(client: httpx2.Client, worker: ScriptedWorker) -> None:
    def work() -> None:
        worker.queue.cancel(worker.claim().id)

    with meanwhile(work):
        reply = client.post("/v1/chat/completions", json=CHAT)
    assert (reply.status_code, reply.json()["error"]["code"]) == (499, "cancelled")


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("begun", [True, False])
def test_a_client_that_goes_away_cancels_its_job(
    gateway: Any, worker: ScriptedWorker, stream: bool, begun: bool
) -> None:
    job = _abandon(gateway.url, worker, {**CHAT, "stream": stream}, {}, begun)
    wait_for(lambda: worker.state(job.id) is State.CANCELLED)
    assert worker.say(job, "void").seq == 0


def test_a_client_that_may_come_back_does_not(gateway: Any, worker: ScriptedWorker, client: httpx2.Client) -> None:
    key = {"Idempotency-Key": "again"}
    job = _abandon(gateway.url, worker, CHAT, key, begun=True)
    wait_for(lambda: not worker.listeners(job.id))
    worker.say(job, " the end", "stop")
    worker.succeed(job)
    reply = client.post("/v1/chat/completions", json=CHAT, headers=key)
    assert reply.headers["idempotent-replayed"] == "true"
    assert reply.headers["x-headrace-job"] == job.id
    assert reply.json()["choices"][0]["message"]["content"] == "begun the end"


def _abandon(url: str, worker: ScriptedWorker, body: dict[str, Any], headers: dict[str, str], begun: bool) -> Job:
    """Ask, see that the job is being followed, and cut the connection."""
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=20)
    connection.request(
        "POST", "/v1/chat/completions", json.dumps(body), {"content-type": "application/json", **headers}
    )
    job = worker.claim()
    if begun:
        worker.say(job, "begun")
    wait_for(lambda: worker.listeners(job.id))
    connection.close()
    return job


def test_a_model_by_its_alias_and_with_a_slash(openai: OpenAI, worker: ScriptedWorker) -> None:
    assert [model.id for model in openai.models.list()] == [MODEL]
    assert openai.models.retrieve(MODEL).id == MODEL
    assert openai.models.retrieve("byte-alias").id == MODEL
    with pytest.raises(NotFoundError) as caught:
        openai.models.retrieve("no/such")
    assert caught.value.code == "model_not_found"
