"""What becomes of the jobs of an OpenAI request that ends before its reply does, streamed and whole."""

import asyncio
import threading
from typing import Any

import httpx2
import pytest

from gateway import waiting
from headrace.contract.errors import JournalExpired
from headrace.contract.events import Event
from headrace.contract.job import State
from headrace.queue.async_redis import AsyncRedisQueue
from headrace.queue.base import ReapReply, ReapRequest
from headrace.store.journal import AsyncJournal
from tests.integration.gateway.scripted_worker import MODEL, ScriptedWorker, wait_for
from tests.integration.gateway.serving import Gateway, serving, settings_for
from tests.redis_server import RedisServer

CHAT = {"model": MODEL, "messages": [{"role": "user", "content": "hi"}]}
TWO = {"model": MODEL, "prompt": ["a", "b"], "stream": True}


@pytest.mark.parametrize("stream", [False, True])
def test_a_gateway_that_stops_cancels_what_its_waiting_clients_cannot_ask_for_again(
    redis_server: RedisServer, worker: ScriptedWorker, stream: bool
) -> None:
    replies: dict[str, httpx2.Response] = {}
    begun = threading.Semaphore(0)
    with serving(settings_for(redis_server.url)) as going, httpx2.Client(base_url=going.url, timeout=20) as client:

        def ask(key: str) -> None:
            headers = {"Idempotency-Key": key} if key else {}
            body = {**CHAT, "stream": stream}
            with client.stream("POST", "/v1/chat/completions", json=body, headers=headers) as reply:
                begun.release()
                reply.read()
            replies[key] = reply

        threads = [threading.Thread(target=ask, args=(key,)) for key in ("", "k")]
        for thread in threads:
            thread.start()
        jobs = [worker.claim(), worker.claim()]
        wait_for(lambda: all(worker.listeners(job.id) for job in jobs))
        for job in jobs:
            worker.say(job, "so")
            assert not stream or begun.acquire(timeout=10)
        going.stop()
        for thread in threads:
            thread.join(10)
    assert {reply.status_code for reply in replies.values()} == {200 if stream else 503}
    assert all("This gateway is stopping." in reply.text for reply in replies.values())
    states = {key: worker.state(reply.headers["x-headrace-job"]) for key, reply in replies.items()}
    assert states == {"": State.CANCELLED, "k": State.RUNNING}


def test_a_stream_that_breaks_cancels_all_its_jobs(
    client: httpx2.Client, worker: ScriptedWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of two jobs has lost its journal: the reply ends with an error, and nobody reads the other."""
    with client.stream("POST", "/v1/completions", json=TWO) as reply:
        lost, other = worker.claim(), worker.claim()
        read = AsyncJournal.read

        async def lose(journal: AsyncJournal, job_id: str, *args: Any) -> list[Event]:
            if job_id == lost.id:
                raise JournalExpired("Its events are gone.")
            return await read(journal, job_id, *args)

        monkeypatch.setattr(AsyncJournal, "read", lose)
        assert "journal_expired" in reply.read().decode()
    wait_for(lambda: worker.state(lost.id) is worker.state(other.id) is State.CANCELLED)


def test_a_stream_that_fails_here_cancels_its_job(
    client: httpx2.Client, worker: ScriptedWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("A fault of the gateway.")

    with client.stream("POST", "/v1/chat/completions", json={**CHAT, "stream": True}) as reply:
        job = worker.claim()
        monkeypatch.setattr(waiting.Waiting, "_take", broken)
        worker.say(job, "so")
        assert "Something went wrong here" in reply.read().decode()
    wait_for(lambda: worker.state(job.id) is State.CANCELLED)


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_was_told_that_its_job_goes_on_finds_it_going_on(
    client: httpx2.Client, worker: ScriptedWorker, gateway: Gateway, monkeypatch: pytest.MonkeyPatch, stream: bool
) -> None:
    monkeypatch.setattr(waiting, "SILENCE_S", 0.2)
    reply = client.post("/v1/chat/completions", json={**CHAT, "stream": stream})
    assert "It goes on as a job." in reply.text
    job_id = reply.headers["x-headrace-job"]
    wait_for(lambda: not worker.listeners(job_id))
    worker.run("done")
    assert worker.state(job_id) is State.SUCCEEDED


def test_a_backlog_of_jobs_to_cancel_holds_up_no_reaper(
    redis_server: RedisServer, worker: ScriptedWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, reap = threading.Event(), AsyncRedisQueue.reap
    reapers: list[AsyncRedisQueue] = []

    async def hang(*_: object) -> None:
        asked.set()
        await asyncio.Event().wait()

    async def noted(queue: AsyncRedisQueue, request: ReapRequest) -> ReapReply:
        reapers.append(queue)
        return await reap(queue, request)

    with serving(settings_for(redis_server.url)) as going, monkeypatch.context() as patched:
        patched.setattr(AsyncRedisQueue, "cancel", hang)
        patched.setattr(AsyncRedisQueue, "reap", noted)
        going.services.abandoned.add("job_01jzzzzzzzzzzzzzzzzzzzzzzz")
        assert asked.wait(10)
        reapers.clear()
        wait_for(lambda: any(queue is going.services.queue for queue in reapers))
