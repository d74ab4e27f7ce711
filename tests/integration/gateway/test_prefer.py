"""`Prefer: wait` on the way in, and what becomes of a job whose client was told that it could not be taken."""

import threading
import time
from typing import Any

import httpx2
import pytest
import redis

from headrace.contract.errors import ErrorInfo, RevisionGone, StoreUnavailable
from headrace.contract.job import State
from headrace.queue.async_redis import AsyncRedisQueue
from headrace.store.cards import CardBook
from tests.integration.gateway.scripted_worker import LANE, MODEL, ScriptedWorker, wait_for
from tests.integration.gateway.serving import Gateway, serving, settings_for
from tests.integration.gateway.test_chat import meanwhile
from tests.redis_server import RedisServer

PROMPT = {"model": MODEL, "prompt": "go"}
CHAT = {"model": MODEL, "messages": [{"role": "user", "content": "hi"}]}


def test_prefer_wait_answers_with_the_ended_job(client: httpx2.Client, worker: ScriptedWorker) -> None:
    with meanwhile(lambda: worker.run("do", "ne")):
        reply = client.post("/v1/jobs", json=PROMPT, headers={"Prefer": "respond-async, wait=30"})
    job = reply.json()
    assert (reply.status_code, reply.headers["preference-applied"]) == (200, "wait=30")
    assert reply.headers["location"] == f"/v1/jobs/{job['id']}"
    assert (job["state"], job["result"]["choices"][0]["text"]) == ("succeeded", "done")


def test_prefer_wait_answers_a_failed_job_too(client: httpx2.Client, worker: ScriptedWorker) -> None:
    with meanwhile(lambda: worker.fail(worker.claim(), ErrorInfo("engine_error", "It broke."))):
        reply = client.post("/v1/jobs", json=PROMPT, headers={"Prefer": "wait=30"})
    assert (reply.status_code, reply.json()["state"], reply.json()["error"]["code"]) == (200, "failed", "engine_error")


def test_prefer_wait_ends_with_its_time(client: httpx2.Client, worker: ScriptedWorker) -> None:
    began = time.monotonic()
    reply = client.post("/v1/jobs", json=PROMPT, headers={"Prefer": "wait=1"})
    assert 0.9 < time.monotonic() - began < 10
    assert (reply.status_code, reply.json()["state"]) == (202, "queued")
    worker.run("later")
    assert client.get(f"/v1/jobs/{reply.json()['id']}").json()["state"] == "succeeded"


def test_a_job_whose_text_cannot_be_made_any_more_is_waited_for_like_any_other(
    client: httpx2.Client, worker: ScriptedWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    accept = AsyncRedisQueue.accept

    async def gone(*_: object) -> None:
        raise RevisionGone("Its revision is gone.")

    async def accept_and_lose(*args: Any, **kwargs: Any) -> Any:
        try:
            return await accept(*args, **kwargs)
        finally:
            monkeypatch.setattr(CardBook, "tokenizer", gone)

    monkeypatch.setattr(AsyncRedisQueue, "accept", accept_and_lose)
    began = time.monotonic()
    reply = client.post("/v1/jobs", json=PROMPT, headers={"Prefer": "wait=1"})
    assert time.monotonic() - began > 0.9
    assert (reply.status_code, reply.headers["preference-applied"]) == (202, "wait=1")


def test_a_wait_that_was_cut_short_is_not_said_to_be_applied(redis_server: RedisServer, worker: ScriptedWorker) -> None:
    def stop_once_followed() -> None:
        job = worker.claim()
        wait_for(lambda: worker.listeners(job.id))
        going.stop()

    with serving(settings_for(redis_server.url)) as going, meanwhile(stop_once_followed):
        reply = httpx2.post(f"{going.url}/v1/jobs", json=PROMPT, headers={"Prefer": "wait=30"}, timeout=20)
    assert (reply.status_code, reply.json()["state"]) == (202, "running")
    assert "preference-applied" not in reply.headers


def test_a_preference_that_means_nothing_is_ignored(client: httpx2.Client) -> None:
    for preference in ("wait", "wait=", "wait=-1", "wait=soon", "wait=0", "waits=5", "respond-async", ""):
        reply = client.post("/v1/jobs", json=PROMPT, headers={"Prefer": preference})
        assert reply.status_code == 202
        assert "preference-applied" not in reply.headers


def test_a_repeat_of_an_ended_job_is_not_waited_for(client: httpx2.Client, worker: ScriptedWorker) -> None:
    headers = {"Idempotency-Key": "once", "Prefer": 'wait="60"; x=y'}
    with meanwhile(lambda: worker.run("done")):
        first = client.post("/v1/jobs", json=PROMPT, headers=headers).json()
    again = client.post("/v1/jobs", json=PROMPT, headers=headers)
    assert (again.status_code, again.json()) == (200, first)


def test_a_client_that_leaves_while_it_waits_cancels_nothing(gateway: Gateway, worker: ScriptedWorker) -> None:
    def ask() -> None:
        with httpx2.Client(base_url=gateway.url, timeout=0.5) as impatient, pytest.raises(httpx2.ReadTimeout):
            impatient.post("/v1/jobs", json=PROMPT, headers={"Prefer": "wait=60"})

    thread = threading.Thread(target=ask)
    thread.start()
    job = worker.claim()
    wait_for(lambda: worker.listeners(job.id))
    thread.join(10)
    wait_for(lambda: not worker.listeners(job.id))
    worker.carry_on(job, "done")
    assert worker.state(job.id) is State.SUCCEEDED


def test_an_expired_job_says_why(client: httpx2.Client) -> None:
    reply = client.post("/v1/jobs", json={**PROMPT, "deadline_seconds": 0.05}, headers={"Prefer": "wait=30"})
    assert (reply.status_code, reply.json()["state"]) == (200, "expired")
    assert reply.json()["error"]["code"] == "deadline_exceeded"


def test_a_submission_whose_answer_was_lost_is_cancelled(
    client: httpx2.Client, gateway: Gateway, worker: ScriptedWorker, store: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a key nobody can ask for it again, so nobody may work on it."""
    accept = gateway.services.queue.accept

    async def lost(*args: Any, **kwargs: Any) -> Any:
        await accept(*args, **kwargs)
        raise StoreUnavailable("The answer was lost.")

    monkeypatch.setattr(gateway.services.queue.__class__, "accept", lambda _, *a, **k: lost(*a, **k))
    for url, body in (("/v1/jobs", PROMPT), ("/v1/chat/completions", CHAT)):
        assert client.post(url, json=body).status_code == 503
    ids = [key.decode().removeprefix("hr:job:") for key in store.scan_iter("hr:job:*")]
    assert len(ids) == 2
    for job_id in ids:
        wait_for(lambda job_id=job_id: worker.state(job_id) is State.CANCELLED)  # type: ignore[misc]
    assert store.zcard(f"hr:lane:{LANE}:standard") == 0


def test_a_job_whose_client_was_answered_503_is_cancelled(
    client: httpx2.Client, gateway: Gateway, worker: ScriptedWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(*_: object) -> None:
        raise StoreUnavailable("The store is away.")

    monkeypatch.setattr("gateway.waiting.telling", away)
    reply = client.post("/v1/chat/completions", json=CHAT)
    assert reply.status_code == 503
    job_id = reply.headers["x-headrace-job"]
    wait_for(lambda: worker.state(job_id) is State.CANCELLED)
    kept = client.post("/v1/chat/completions", json=CHAT, headers={"Idempotency-Key": "k"})
    assert worker.state(kept.headers["x-headrace-job"]) is State.QUEUED
