"""`POST /v1/jobs/<id>/replay`: what the new job is, who may run it, and when there is none."""

import httpx2
import pytest
import redis

from headrace.contract.generation import FrozenRequest
from headrace.contract.job import Job, State
from headrace.queue.base import ClaimRequest
from tests.integration.gateway.scripted_worker import LANE, MODEL, REVISION, ScriptedWorker

ASKED = {"model": MODEL, "prompt": "Rivers", "max_tokens": 40, "temperature": 0.8, "stop": ["zz"], "logprobs": 2}


@pytest.fixture
def ended(client: httpx2.Client, worker: ScriptedWorker) -> Job:
    client.post("/v1/jobs", json={**ASKED, "class": "batch", "metadata": {"who": "me"}, "deadline_seconds": 60})
    return worker.run(" run", " on")


def record(worker: ScriptedWorker, job_id: str) -> Job:
    job = worker.queue.get(job_id)
    assert job is not None
    return job


def request_of(worker: ScriptedWorker, job_id: str) -> FrozenRequest:
    return record(worker, job_id).request


def claimed_by(worker: ScriptedWorker, digest: str) -> list[str]:
    request = ClaimRequest((LANE,), f"w_{digest}", REVISION, digest, 100_000, 100_000, 8)
    return [job.id for job in worker.queue.claim(request)]


def test_the_same_request_becomes_a_new_job(client: httpx2.Client, worker: ScriptedWorker, ended: Job) -> None:
    reply = client.post(f"/v1/jobs/{ended.id}/replay")
    shown = reply.json()
    assert (reply.status_code, reply.headers["location"]) == (202, f"/v1/jobs/{shown['id']}")
    assert (shown["replay_of"], shown["digest_wanted"], shown["digests"]) == (ended.id, "digest-1", [])
    assert shown["metadata"] == {"who": "me", "replay_of": ended.id}
    assert (shown["class"], shown["deadline_at"], shown["state"]) == ("batch", None, "queued")
    assert request_of(worker, shown["id"]) == request_of(worker, ended.id)


def test_the_result_shows_ids_and_the_job_its_digest(client: httpx2.Client, ended: Job) -> None:
    shown = client.get(f"/v1/jobs/{ended.id}").json()
    assert shown["result"]["choices"][0]["token_ids"] == list(b" run on")
    assert (shown["digests"], shown["digest_wanted"], shown["replay_of"]) == (["digest-1"], None, None)


def test_only_the_digest_of_the_first_run_may_take_it(
    client: httpx2.Client, worker: ScriptedWorker, ended: Job
) -> None:
    replayed = client.post(f"/v1/jobs/{ended.id}/replay").json()["id"]
    assert claimed_by(worker, "digest-2") == []
    assert claimed_by(worker, "digest-1") == [replayed]


def test_or_any_where_that_is_asked(client: httpx2.Client, worker: ScriptedWorker, ended: Job) -> None:
    asked = {"any_digest": True, "class": "interactive", "deadline_seconds": 90}
    shown = client.post(f"/v1/jobs/{ended.id}/replay", json=asked).json()
    assert (shown["class"], shown["digest_wanted"]) == ("interactive", None)
    assert shown["deadline_at"] - shown["created_at"] == 90_000
    assert claimed_by(worker, "digest-2") == [shown["id"]]


def test_a_replay_can_be_replayed(client: httpx2.Client, worker: ScriptedWorker, ended: Job) -> None:
    first = client.post(f"/v1/jobs/{ended.id}/replay").json()["id"]
    worker.run(" run", " on")
    second = client.post(f"/v1/jobs/{first}/replay").json()
    assert (second["replay_of"], second["metadata"]["replay_of"]) == (first, first)


def test_a_key_says_it_once(client: httpx2.Client, ended: Job) -> None:
    url, key = f"/v1/jobs/{ended.id}/replay", {"Idempotency-Key": "again"}
    first, repeat = client.post(url, headers=key), client.post(url, headers=key)
    assert repeat.json()["id"] == first.json()["id"]
    assert repeat.headers["idempotent-replayed"] == "true"
    other = client.post(url, headers=key, json={"any_digest": True})
    assert (other.status_code, other.json()["error"]["code"]) == (409, "idempotency_conflict")


def test_what_cannot_be_replayed(client: httpx2.Client, worker: ScriptedWorker, ended: Job) -> None:
    going_on = client.post("/v1/jobs", json=ASKED).json()["id"]
    assert "has not ended" in client.post(f"/v1/jobs/{going_on}/replay").json()["error"]["message"]
    client.delete(f"/v1/jobs/{going_on}")
    reply = client.post(f"/v1/jobs/{going_on}/replay")
    assert (reply.status_code, "never begun" in reply.json()["error"]["message"]) == (400, True)
    unknown = client.post("/v1/jobs/job_01hzzzzzzzzzzzzzzzzzzzzzzz/replay")
    assert (unknown.status_code, unknown.json()["error"]["code"]) == (404, "job_not_found")
    bogus = client.post(f"/v1/jobs/{ended.id}/replay", json={"seed": 1})
    assert (bogus.status_code, bogus.json()["error"]["code"]) == (400, "unknown_parameter")
    assert {worker.state(ended.id), worker.state(going_on)} == {State.SUCCEEDED, State.CANCELLED}


def test_another_revision_says_something_else(store: redis.Redis, client: httpx2.Client, ended: Job) -> None:
    store.hset(f"hr:job:{ended.id}", "revision", "revision-0")
    reply = client.post(f"/v1/jobs/{ended.id}/replay")
    assert (reply.status_code, reply.json()["error"]["code"]) == (409, "revision_gone")
