"""`/v1/jobs` without its events: durable before the 202, idempotent, cancelled, shown as it stands."""

import httpx2
import pytest

from headrace.contract.errors import ErrorInfo
from headrace.contract.job import State
from tests.integration.gateway.scripted_worker import MODEL, ScriptedWorker

CHAT = {"model": MODEL, "messages": [{"role": "user", "content": "hi"}]}


def test_a_202_means_that_the_job_is_on_the_queue(client: httpx2.Client, worker: ScriptedWorker) -> None:
    reply = client.post("/v1/jobs", json={**CHAT, "class": "batch", "metadata": {"doc": "7"}, "max_tokens": 9})
    job = reply.json()
    assert reply.status_code == 202
    assert reply.headers["location"] == f"/v1/jobs/{job['id']}"
    assert (job["object"], job["state"], job["class"]) == ("job", "queued", "batch")
    assert job["created_at"] > 1_600_000_000_000
    assert job["metadata"] == {"doc": "7"}
    assert worker.claim().id == job["id"]


def test_the_result_has_openais_choices(client: httpx2.Client, worker: ScriptedWorker) -> None:
    job_id = client.post("/v1/jobs", json=CHAT).json()["id"]
    worker.run("naï", "ve")
    job = client.get(f"/v1/jobs/{job_id}").json()
    assert job["state"] == "succeeded"
    (choice,) = job["result"]["choices"]
    assert choice["message"] == {"role": "assistant", "content": "naïve"}
    assert choice["finish_reason"] == "stop"
    assert job["usage"]["completion_tokens"] == 6


def test_a_prompt_makes_a_completion(client: httpx2.Client, worker: ScriptedWorker) -> None:
    job_id = client.post("/v1/jobs", json={"model": MODEL, "prompt": "once"}).json()["id"]
    job = worker.run(" upon")
    assert bytes(job.request.prompt_ids) == b"once"
    assert client.get(f"/v1/jobs/{job_id}").json()["result"]["choices"][0]["text"] == " upon"


def test_a_job_that_failed_says_why(client: httpx2.Client, worker: ScriptedWorker) -> None:
    job_id = client.post("/v1/jobs", json=CHAT).json()["id"]
    worker.fail(worker.claim(), ErrorInfo("engine_error", "A row was not a number."))
    job = client.get(f"/v1/jobs/{job_id}").json()
    assert (job["state"], job["result"], job["error"]["code"]) == ("failed", None, "engine_error")


def test_the_same_key_and_body_is_the_same_job(client: httpx2.Client) -> None:
    key = {"Idempotency-Key": "once-only"}
    first = client.post("/v1/jobs", json=CHAT, headers=key)
    again = client.post("/v1/jobs", json=dict(reversed(CHAT.items())), headers=key)
    assert again.json()["id"] == first.json()["id"]
    assert again.status_code == 202
    assert again.headers["idempotent-replayed"] == "true"
    assert "idempotent-replayed" not in first.headers


def test_the_same_key_with_another_body_is_a_conflict(client: httpx2.Client) -> None:
    key = {"Idempotency-Key": "once-only"}
    client.post("/v1/jobs", json=CHAT, headers=key)
    reply = client.post("/v1/jobs", json={**CHAT, "max_tokens": 5}, headers=key)
    assert reply.status_code == 409
    assert reply.json()["error"]["code"] == "idempotency_conflict"
    assert reply.headers["x-should-retry"] == "false"


@pytest.mark.parametrize("key", [b"x" * 256, b"a b", "naïve".encode()])
def test_a_bad_key_is_refused(client: httpx2.Client, key: bytes) -> None:
    reply = client.post("/v1/jobs", json=CHAT, headers={b"Idempotency-Key": key})
    assert (reply.status_code, reply.json()["error"]["param"]) == (400, "Idempotency-Key")


def test_cancel_ends_a_waiting_job(client: httpx2.Client, worker: ScriptedWorker) -> None:
    job_id = client.post("/v1/jobs", json=CHAT).json()["id"]
    reply = client.delete(f"/v1/jobs/{job_id}")
    assert (reply.status_code, reply.json()["state"]) == (200, "cancelled")
    assert worker.state(job_id) is State.CANCELLED


def test_cancelling_an_ended_job_shows_it_as_it_is(client: httpx2.Client, worker: ScriptedWorker) -> None:
    job_id = client.post("/v1/jobs", json=CHAT).json()["id"]
    worker.run("done")
    reply = client.delete(f"/v1/jobs/{job_id}")
    assert (reply.status_code, reply.json()["state"]) == (200, "succeeded")


@pytest.mark.parametrize("method", ["GET", "DELETE"])
@pytest.mark.parametrize("job_id", ["job_01jzzzzzzzzzzzzzzzzzzzzzzz", "nonsense", "job_*", "%00"])
def test_unknown_jobs_are_not_found(client: httpx2.Client, method: str, job_id: str) -> None:
    reply = client.request(method, f"/v1/jobs/{job_id}")
    assert (reply.status_code, reply.json()["error"]["code"]) == (404, "job_not_found")


def test_a_passed_deadline_expires_the_job(client: httpx2.Client, worker: ScriptedWorker) -> None:
    """The gateway itself reaps: no worker lives here."""
    job_id = client.post("/v1/jobs", json={**CHAT, "deadline_seconds": 0.05}).json()["id"]
    with client.stream("GET", f"/v1/jobs/{job_id}/events") as reply:
        assert "event: expired" in reply.read().decode()
    assert worker.state(job_id) is State.EXPIRED
