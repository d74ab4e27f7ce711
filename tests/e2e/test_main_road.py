"""The main road with the clients people have: the openai SDK, curl, redis-py. Real fleet, real model."""

import json
import shutil
import subprocess
from typing import Any

import pytest
import redis
from openai import NotFoundError, OpenAI

from headrace import Client
from tests.e2e.fleet import Fleet

pytestmark = [pytest.mark.real_model, pytest.mark.timeout(240)]
QUESTION = [{"role": "user", "content": "What stands beside a river and grinds corn?"}]


@pytest.fixture
def openai(fleet: Fleet) -> OpenAI:
    return OpenAI(base_url=f"{fleet.url}/v1", api_key="none")


def test_the_openai_sdk_lists_models_and_completes_a_chat(openai: OpenAI, fleet: Fleet) -> None:
    assert fleet.model in [model.id for model in openai.models.list()]
    chat = openai.chat.completions.create(model=fleet.model, messages=QUESTION, max_tokens=24, temperature=0)  # type: ignore[arg-type]
    assert chat.choices[0].message.content
    assert chat.choices[0].finish_reason in ("stop", "length")
    assert chat.usage is not None
    assert chat.usage.prompt_tokens > 10
    assert 0 < chat.usage.completion_tokens <= 24


def test_streamed_and_not_say_the_same(openai: OpenAI, fleet: Fleet) -> None:
    fields = {"model": fleet.model, "messages": QUESTION, "max_tokens": 40, "temperature": 0.9, "seed": 7}
    whole = openai.chat.completions.create(**fields)  # type: ignore[call-overload]
    parts = list(openai.chat.completions.create(**fields, stream=True, stream_options={"include_usage": True}))  # type: ignore[call-overload]
    assert "".join(part.choices[0].delta.content or "" for part in parts if part.choices) == (
        whole.choices[0].message.content
    )
    assert parts[-1].usage.completion_tokens == whole.usage.completion_tokens


def test_an_unknown_model_is_the_sdk_s_not_found(openai: OpenAI) -> None:
    with pytest.raises(NotFoundError) as caught:
        openai.chat.completions.create(model="no-such-model", messages=QUESTION)  # type: ignore[arg-type]
    assert caught.value.code == "model_not_found"


def curl_events(fleet: Fleet, job_id: str, *, cut: bool, cursor: str = "") -> list[tuple[str, dict[str, object]]]:
    """`curl -N` of a job's events, whole or cut behind the first delta. The whole messages in them: cursor and data."""
    command = ["curl", "-sN", f"{fleet.url}/v1/jobs/{job_id}/events"]
    command += ["-H", f"Last-Event-ID: {cursor}"] if cursor else []
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as curl:
        assert curl.stdout is not None
        text = ""
        for line in curl.stdout:
            text += line
            if cut and line == "\n" and "delta" in text:
                curl.kill()
                break
    messages = []
    for block in text.split("\n\n")[:-1]:
        fields = dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":"))
        messages.append((fields["id"], json.loads(fields["data"])))
    return messages


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
def test_events_cut_in_the_middle_and_resumed_join_to_the_same_text(fleet: Fleet) -> None:
    with Client(fleet.url) as client:
        job = client.submit(model=fleet.model, messages=QUESTION, max_tokens=48, temperature=0)
        first = curl_events(fleet, job.id, cut=True)
        rest = curl_events(fleet, job.id, cut=False, cursor=first[-1][0])
        whole = job.wait(60).text
    assert first[-1][1]["type"] == "delta"
    assert rest[-1][1]["type"] == "completed"
    assert "".join(str(data.get("text", "")) for _, data in first + rest) == whole
    assert [data["seq"] for _, data in first + rest] == list(range(1, len(first + rest) + 1))


def test_a_subscriber_sees_every_token_on_the_live_channel(fleet: Fleet) -> None:
    """Subscribe to the pattern before the job exists, so that its first event is not missed."""
    with redis.Redis.from_url(fleet.redis_url) as store, store.pubsub() as pubsub, Client(fleet.url) as client:
        pubsub.psubscribe("hr:live:*")
        assert pubsub.get_message(timeout=5)
        job = client.submit(model=fleet.model, messages=QUESTION, max_tokens=32, temperature=0)
        events: list[dict[str, Any]] = []
        while not events or events[-1]["type"] != "completed":
            message = pubsub.get_message(timeout=30)
            assert message is not None, "the channel fell silent"
            if message["channel"].decode() == f"hr:live:{job.id}":
                events.append(json.loads(message["data"]))
        result = job.wait(10)
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
    assert "".join(event["text"] for event in events if event["type"] == "delta") == result.text
    ids = [token for event in events if event["type"] == "delta" for token in event["token_ids"]]
    assert len(ids) == result.usage.completion_tokens
