"""A model that always fails before its first token, and another that answers instead, with a vocabulary of its own."""

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import httpx2
import pytest
import redis
from openai import BadRequestError, OpenAI

from headrace.contract.errors import ErrorInfo
from headrace.contract.events import Delta
from headrace.contract.generation import Choice, Usage
from headrace.contract.job import Job, State
from headrace.queue.base import Append, ClaimRequest, Ending, ReapRequest
from headrace.store.cards import write_card
from tests.integration.gateway.scripted_worker import CARD, MODEL, REVISION, ScriptedWorker, wait_for
from tests.integration.gateway.serving import Gateway, serving, settings_for
from tests.integration.gateway.sse_reader import follow, text_of
from tests.integration.gateway.test_chat import QUESTION, meanwhile
from tests.redis_server import RedisServer
from tests.unit.gateway.byte_model import TOKENIZER_JSON

OTHER = replace(CARD, id="other-model", revision="revision-2", aliases=(), vocab_size=300)
ERROR = ErrorInfo("engine_error", "It broke.", True)
EXTRA: Any = {"fallback_model": OTHER.id}


def shifted(text: str) -> tuple[int, ...]:
    """The ids of a text in the other model's vocabulary."""
    return tuple((byte + 1) % 256 for byte in text.encode())


@pytest.fixture(scope="module")
def session_gateway(redis_server: RedisServer) -> Iterator[Gateway]:
    """One of this file's own: a gateway remembers for two seconds which models there are."""
    with serving(settings_for(redis_server.url)) as gateway:
        yield gateway


@pytest.fixture
def other_card(store: redis.Redis, worker: ScriptedWorker) -> None:
    tokenizer = json.loads(TOKENIZER_JSON)
    vocab = tokenizer["model"]["vocab"]
    tokenizer["model"]["vocab"] = {token: (i + 1) % 256 if i < 256 else i for token, i in vocab.items()}
    write_card(store, OTHER, json.dumps(tokenizer))


def fail_all_retries(worker: ScriptedWorker) -> None:
    for _ in range(4):
        job = worker.claim()
        worker.queue.retry(job.lease, 1, ERROR)
        worker.queue.reap(ReapRequest())


def answer(worker: ScriptedWorker, text: str) -> Job:
    """As a worker of the other model does."""
    request = ClaimRequest((f"{OTHER.id}@stable",), "w_other", OTHER.revision, "digest-2", 100_000, 100_000, 1)
    (job,) = wait_for(lambda: worker.queue.claim(request))
    ids = shifted(text)
    worker.queue.append([Append(job.lease, (Delta(0, 0, 0, ids, text, "stop"),))])
    usage = Usage(len(job.request.prompt_ids), len(ids))
    worker.queue.finish(job.lease, Ending(State.SUCCEEDED, usage, (Choice(0, ids, "stop"),)))
    return job


def fall_back(worker: ScriptedWorker, text: str) -> Job:
    fail_all_retries(worker)
    return answer(worker, text)


@pytest.mark.usefixtures("other_card")
@pytest.mark.parametrize("stream", [True, False])
def test_the_other_model_answers_and_the_reply_names_it(openai: OpenAI, worker: ScriptedWorker, stream: bool) -> None:
    with meanwhile(lambda: fall_back(worker, "naïve")):
        reply: Any = openai.chat.completions.create(model=MODEL, messages=QUESTION, stream=stream, extra_body=EXTRA)
        chunks = list(reply) if stream else [reply]
    said = [chunk.choices[0].delta if stream else chunk.choices[0].message for chunk in chunks]
    assert "".join(each.content or "" for each in said) == "naïve"
    assert {chunk.model for chunk in chunks} == {OTHER.id}


@pytest.mark.usefixtures("other_card")
def test_a_reply_by_two_models_has_the_name_that_was_asked_for(openai: OpenAI, worker: ScriptedWorker) -> None:
    def one_here_one_there() -> None:
        job = worker.claim()
        worker.say(job, "one", "stop")
        worker.succeed(job)
        fall_back(worker, "two")

    with meanwhile(one_here_one_there):
        reply = openai.completions.create(model=MODEL, prompt=["a", "b"], extra_body=EXTRA)
    assert sorted(choice.text for choice in reply.choices) == ["one", "two"]
    assert reply.model == MODEL


@pytest.mark.usefixtures("other_card")
def test_a_job_keeps_its_id_and_says_what_it_was_made_for(client: httpx2.Client, worker: ScriptedWorker) -> None:
    body = {"model": MODEL, "messages": QUESTION, **EXTRA}
    job_id = client.post("/v1/jobs", json=body).json()["id"]
    job = fall_back(worker, "Hi 🙂")
    assert job.id == job_id
    shown = client.get(f"/v1/jobs/{job_id}").json()
    assert (shown["state"], shown["model"], shown["fallback_of"]) == ("succeeded", OTHER.id, MODEL)
    assert shown["result"]["choices"][0]["message"]["content"] == "Hi 🙂"
    assert text_of(follow(client, job_id)) == "Hi 🙂"
    started = [event.data for event in follow(client, job_id) if event.event == "started"]
    assert [event["revision"] for event in started] == [REVISION, OTHER.revision]


@pytest.mark.usefixtures("other_card")
def test_a_fallback_that_cannot_be_is_refused(openai: OpenAI) -> None:
    with pytest.raises(BadRequestError) as refused:
        openai.completions.create(model=MODEL, prompt=[1, 2, 3], extra_body=EXTRA)
    assert refused.value.param == "fallback_model"
