"""`/v1/completions` whole, through the unmodified `openai` SDK: prompts of every form, echo, logprobs, streams."""

import http.client
import json
from typing import Any

import httpx2
import pytest
from openai import APIError, APIStatusError, BadRequestError, OpenAI

from headrace.contract.errors import ErrorInfo
from headrace.contract.job import Job, State
from tests.integration.gateway.scripted_worker import MODEL, ScriptedWorker, wait_for
from tests.integration.gateway.serving import Gateway
from tests.integration.gateway.test_chat import meanwhile
from tests.unit.gateway.byte_model import EOS, ids_of


def answer_all(worker: ScriptedWorker, count: int) -> None:
    """Answer each prompt with itself in capitals, the last one first."""
    jobs = [worker.claim() for _ in range(count)]
    for job in reversed(jobs):
        text = bytes(job.request.prompt_ids).decode().upper()
        worker.carry_on(job, text[:1], text[1:])


@pytest.mark.parametrize(
    "prompt", [["one", "two", "three"], [list(ids_of("one")), list(ids_of("two")), list(ids_of("three"))]]
)
def test_several_prompts_are_choices_in_their_order(openai: OpenAI, worker: ScriptedWorker, prompt: Any) -> None:
    worker.cached_tokens = 2
    with meanwhile(lambda: answer_all(worker, 3)):
        raw = openai.completions.with_raw_response.create(model=MODEL, prompt=prompt)
    whole = raw.parse()
    assert [(choice.index, choice.text) for choice in whole.choices] == [(0, "ONE"), (1, "TWO"), (2, "THREE")]
    assert whole.usage is not None
    assert (whole.usage.prompt_tokens, whole.usage.completion_tokens, whole.usage.total_tokens) == (11, 11, 22)
    assert whole.usage.prompt_tokens_details is not None
    assert whole.usage.prompt_tokens_details.cached_tokens == 3 * 2
    assert whole.id.removeprefix("cmpl-") == raw.headers["x-headrace-job"].removeprefix("job_")


def test_several_prompts_as_a_stream(openai: OpenAI, worker: ScriptedWorker) -> None:
    options: Any = {"stream_options": {"include_usage": True}}
    with meanwhile(lambda: answer_all(worker, 3)):
        parts = list(openai.completions.create(model=MODEL, prompt=["one", "two", "three"], stream=True, **options))
    texts = ["", "", ""]
    ends = []
    for part in parts[:-1]:
        (choice,) = part.choices
        texts[choice.index] += choice.text
        ends += [choice.index] if choice.finish_reason else []
    assert texts == ["ONE", "TWO", "THREE"]
    assert sorted(ends) == [0, 1, 2]
    assert parts[-1].choices == []
    assert parts[-1].usage is not None
    assert parts[-1].usage.total_tokens == 22
    assert len({part.id for part in parts}) == 1


def test_one_prompt_of_token_ids(openai: OpenAI, worker: ScriptedWorker) -> None:
    with meanwhile(lambda: worker.run("yes")):
        whole = openai.completions.create(model=MODEL, prompt=[104, 105, EOS])
    assert whole.choices[0].text == "yes"
    assert whole.usage is not None
    assert whole.usage.prompt_tokens == 3


def test_echo_and_logprobs_of_prompt_and_answer(openai: OpenAI, worker: ScriptedWorker) -> None:
    with meanwhile(lambda: worker.run("é", "!")):
        whole = openai.completions.create(model=MODEL, prompt="hi", echo=True, logprobs=2)
    (choice,) = whole.choices
    assert choice.text == "hié!"
    logprobs = choice.logprobs
    assert logprobs is not None
    assert logprobs.tokens == ["h", "i", "bytes:\\xc3", "bytes:\\xa9", "!"]
    assert logprobs.token_logprobs == [None, -0.5, -0.5, -0.5, -0.5]
    assert logprobs.text_offset == [0, 1, 2, 2, 3]
    assert logprobs.top_logprobs is not None
    tops: list[Any] = list(logprobs.top_logprobs)
    assert tops[:3] == [None, {"i": -0.5, "j": -1.5}, {"bytes:\\xc3": -0.5, "bytes:\\xc4": -1.5}]


def test_a_stream_joins_to_the_same_logprobs(openai: OpenAI, worker: ScriptedWorker) -> None:
    asked: Any = {"model": MODEL, "prompt": list(ids_of("hi")), "echo": True, "logprobs": 1}
    with meanwhile(lambda: worker.run("a", "é", "z")):
        whole = openai.completions.create(**asked).choices[0]
    with meanwhile(lambda: worker.run("a", "é", "z")):
        parts = [part.choices[0] for part in openai.completions.create(**asked, stream=True)]
    assert "".join(part.text for part in parts) == whole.text == "hiaéz"
    assert whole.logprobs is not None
    for name in ("tokens", "token_logprobs", "top_logprobs", "text_offset"):
        said = [item for part in parts if part.logprobs for item in getattr(part.logprobs, name)]
        assert said == getattr(whole.logprobs, name)


def test_a_prompt_is_scored_and_nothing_added(openai: OpenAI, worker: ScriptedWorker) -> None:
    def work() -> None:
        job = worker.claim()
        assert (job.request.max_tokens, job.request.prompt_logprobs, job.request.echo) == (0, 0, True)
        worker.say(job, "", "length")
        worker.succeed(job, "length")

    with meanwhile(work):
        whole = openai.completions.create(model=MODEL, prompt="hey", echo=True, logprobs=0, max_tokens=0)
    (choice,) = whole.choices
    assert (choice.text, choice.finish_reason) == ("hey", "length")
    assert choice.logprobs is not None
    assert choice.logprobs.tokens == ["h", "e", "y"]
    assert choice.logprobs.token_logprobs == [None, -0.5, -0.5]


def test_scoring_as_evaluation_harnesses_read_it(client: httpx2.Client, worker: ScriptedWorker) -> None:
    """They send contexts and continuations as ids with one token to generate, and leave that one out again."""
    context, continuation = ids_of("2+2="), ids_of("4")
    body = {"model": MODEL, "prompt": [[*context, *continuation]], "max_tokens": 1, "logprobs": 1, "echo": True}
    with meanwhile(lambda: worker.run("!")):
        (choice,) = client.post("/v1/completions", json={**body, "temperature": 0}).json()["choices"]
    scored = choice["logprobs"]["token_logprobs"][len(context) : -1]
    tops = choice["logprobs"]["top_logprobs"][len(context) : -1]
    assert scored == [-0.5]
    assert [max(top.values()) for top in tops] == scored


def test_logprobs_of_a_chat(openai: OpenAI, worker: ScriptedWorker) -> None:
    question: Any = [{"role": "user", "content": "hi"}]
    asked: Any = {"model": MODEL, "messages": question, "logprobs": True, "top_logprobs": 2}
    with meanwhile(lambda: worker.run("é", "!")):
        whole = openai.chat.completions.create(**asked).choices[0]
    with meanwhile(lambda: worker.run("é", "!")):
        parts = [part.choices[0] for part in openai.chat.completions.create(**asked, stream=True)]
    assert whole.logprobs is not None
    assert whole.logprobs.content is not None
    assert [(token.token, token.bytes) for token in whole.logprobs.content] == [
        ("\\xc3", [0xC3]),
        ("\\xa9", [0xA9]),
        ("!", [0x21]),
    ]
    last = whole.logprobs.content[2]
    assert last.logprob == -0.5
    assert [(top.token, top.logprob) for top in last.top_logprobs] == [("!", -0.5), ('"', -1.5)]
    said = [token for part in parts if part.logprobs for token in part.logprobs.content or []]
    assert said == whole.logprobs.content


def test_a_job_shows_echo_and_logprobs_in_its_result_and_its_events(
    client: httpx2.Client, worker: ScriptedWorker
) -> None:
    body = {"model": MODEL, "prompt": [104, 105], "echo": True, "logprobs": 1}
    job_id = client.post("/v1/jobs", json=body).json()["id"]
    worker.run("a", "b")
    (choice,) = client.get(f"/v1/jobs/{job_id}").json()["result"]["choices"]
    assert choice["text"] == "hiab"
    assert choice["logprobs"]["token_logprobs"] == [None, -0.5, -0.5, -0.5]
    raw = client.get(f"/v1/jobs/{job_id}/events").text
    deltas = [json.loads(line[6:]) for line in raw.splitlines() if line.startswith('data: {"seq') and "delta" in line]
    assert deltas[0]["prompt_logprobs"] == [None, {"logprob": -0.5, "top": [[105, -0.5]]}]
    assert deltas[0]["logprobs"] == [{"logprob": -0.5, "top": [[97, -0.5]]}]
    assert "prompt_logprobs" not in deltas[1]


def test_one_bad_prompt_refuses_all_and_queues_none(openai: OpenAI, worker: ScriptedWorker) -> None:
    for prompt in (["fine", "long " * 1000], [[1], [259]]):
        with pytest.raises(BadRequestError) as caught:
            openai.completions.create(model=MODEL, prompt=prompt)
        assert caught.value.param == "prompt"
    assert not list(worker.client.scan_iter("hr:job:*"))


@pytest.mark.parametrize("stream", [True, False])
def test_one_job_that_fails_cancels_the_others(openai: OpenAI, worker: ScriptedWorker, stream: bool) -> None:
    jobs: list[Job] = []

    def work() -> None:
        jobs.extend(worker.claim() for _ in range(3))
        worker.fail(jobs[1], ErrorInfo("engine_error", "It broke."))

    with meanwhile(work), pytest.raises(APIStatusError) as caught:
        openai.completions.create(model=MODEL, prompt=["a", "b", "c"], stream=stream)
    assert (caught.value.status_code, caught.value.code) == (500, "engine_error")
    for job in (jobs[0], jobs[2]):
        wait_for(lambda job=job: worker.state(job.id) is State.CANCELLED)  # type: ignore[misc]


def test_one_job_that_fails_in_the_middle_ends_the_stream(openai: OpenAI, worker: ScriptedWorker) -> None:
    jobs: list[Job] = []

    def work() -> None:
        jobs.extend(worker.claim() for _ in range(2))
        worker.say(jobs[0], "so far")
        wait_for(lambda: worker.listeners(jobs[1].id))
        worker.fail(jobs[1], ErrorInfo("engine_error", "It broke."))

    with meanwhile(work):
        stream = openai.completions.create(model=MODEL, prompt=["a", "b"], stream=True)
        with pytest.raises(APIError) as caught:
            list(stream)
    assert caught.value.code == "engine_error"
    wait_for(lambda: worker.state(jobs[0].id) is State.CANCELLED)


def test_a_client_that_leaves_cancels_all(gateway: Gateway, worker: ScriptedWorker) -> None:
    connection = http.client.HTTPConnection(gateway.url.removeprefix("http://"), timeout=20)
    body = json.dumps({"model": MODEL, "prompt": ["a", "b", "c"]})
    connection.request("POST", "/v1/completions", body, {"content-type": "application/json"})
    jobs = [worker.claim() for _ in range(3)]
    wait_for(lambda: all(worker.listeners(job.id) for job in jobs))
    connection.close()
    for job in jobs:
        wait_for(lambda job=job: worker.state(job.id) is State.CANCELLED)  # type: ignore[misc]


def test_one_key_makes_the_same_jobs_again(client: httpx2.Client, worker: ScriptedWorker) -> None:
    key = {"Idempotency-Key": "again"}
    body = {"model": MODEL, "prompt": ["one", "two"]}
    with meanwhile(lambda: answer_all(worker, 2)):
        first = client.post("/v1/completions", json=body, headers=key)
    again = client.post("/v1/completions", json=body, headers=key)
    assert again.headers["idempotent-replayed"] == "true"
    assert again.json()["choices"] == first.json()["choices"]
    assert len(list(worker.client.scan_iter("hr:job:*"))) == 2
    other = client.post("/v1/completions", json={**body, "prompt": ["one", "three"]}, headers=key)
    assert (other.status_code, other.json()["error"]["code"]) == (409, "idempotency_conflict")
    assert len(list(worker.client.scan_iter("hr:job:*"))) == 2


def test_as_many_prompts_as_are_allowed(client: httpx2.Client, worker: ScriptedWorker) -> None:
    prompts = [f"p{number}" for number in range(128)]
    with meanwhile(lambda: answer_all(worker, 128)):
        reply = client.post("/v1/completions", json={"model": MODEL, "prompt": prompts})
    assert [choice["text"] for choice in reply.json()["choices"]] == [prompt.upper() for prompt in prompts]
    refused = client.post("/v1/completions", json={"model": MODEL, "prompt": [*prompts, "one more"]})
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "prompt")
    assert "128" in refused.json()["error"]["message"]
