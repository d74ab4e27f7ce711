"""A gateway with a ledger: nobody is told 202 before the broker has confirmed, and all of a fleet with one."""

from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
import redis

from headrace import Client
from headrace.contract.job import State
from headrace.ledger.done import DoneMarks
from headrace.settings import BlobSettings
from headrace.store.blobs_folder import FolderBlobs
from tests.e2e.fleet import running, wait_until
from tests.integration.gateway.scripted_worker import MODEL, ScriptedWorker
from tests.integration.gateway.serving import serving, settings_for
from tests.ledger.benches import PATIENCE_S, Bench, SqsBench, receive
from tests.ledger.world import World
from tests.redis_server import RedisServer

PROMPT = {"model": MODEL, "prompt": "go"}


@pytest.fixture
def worker(client: redis.Redis) -> ScriptedWorker:
    worker = ScriptedWorker(client)
    worker.announce()
    return worker


@pytest.fixture
def http(
    bench: Bench, redis_server: RedisServer, worker: ScriptedWorker, blobs: FolderBlobs, tmp_path: Path
) -> Iterator[httpx2.Client]:
    settings = settings_for(redis_server.url).model_copy(
        update={"ledger": bench.settings(), "blobs": BlobSettings(url=str(tmp_path / "blobs"))}
    )
    with serving(settings) as gateway, httpx2.Client(base_url=gateway.url, timeout=PATIENCE_S) as http:
        yield http


def test_accepted_is_in_the_ledger(bench: Bench, http: httpx2.Client, client: redis.Redis) -> None:
    answer = http.post("/v1/jobs", json=PROMPT)
    assert answer.status_code == 202
    job_id = answer.json()["id"]
    (message,) = receive(bench.open(), 1)
    assert job_id.encode() in message.body
    assert client.hget(f"hr:job:{job_id}", "state") == b"QUEUED"
    assert client.hget(f"hr:job:{job_id}", "ledger_receipt") == bench.scheme.encode()


def test_without_the_ledger_nothing_is_accepted(bench: Bench, http: httpx2.Client, client: redis.Redis) -> None:
    bench.remove_queue()
    refused = http.post("/v1/jobs", json=PROMPT)
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "ledger_unavailable")
    assert int(refused.headers["retry-after"]) >= 1

    def states() -> set[object]:
        return {client.hget(key, "state") for key in client.keys("hr:job:*")}

    wait_until(lambda: states() == {b"CANCELLED"}, PATIENCE_S, "the job that nobody asks for to be cancelled")
    keyed = {"Idempotency-Key": "k"}
    assert http.post("/v1/jobs", json=PROMPT, headers=keyed).status_code == 503
    bench.make_queue()
    again = http.post("/v1/jobs", json=PROMPT, headers=keyed)
    assert again.status_code == 202
    assert again.headers["idempotent-replayed"] == "true"
    assert again.json()["state"] == "queued"
    assert client.zcard("hr:accepted") == 0


def test_a_job_that_redis_forgot_is_shown_by_its_mark(
    sqs_bench: SqsBench, redis_server: RedisServer, client: redis.Redis, worker: ScriptedWorker, blobs: FolderBlobs
) -> None:
    settings = settings_for(redis_server.url).model_copy(
        update={"ledger": sqs_bench.settings(), "blobs": BlobSettings(url=str(blobs.path_of("x").parent))}
    )
    world = World(sqs_bench, client, blobs)
    with serving(settings) as gateway, httpx2.Client(base_url=gateway.url, timeout=PATIENCE_S) as http:
        job_id = http.post("/v1/jobs", json=PROMPT).json()["id"]
        job = worker.run("Hel", "lo")
        assert job.id == job_id
        before = http.get(f"/v1/jobs/{job_id}").json()
        feeder = world.feeder(sqs_bench.open())
        world.drive(feeder, lambda: world.acked[job_id] == 1, work=False)
        client.flushall()
        assert http.get("/v1/jobs/job_01m84tnh59th1rdh84r7ajc4nr").status_code == 404
        worker.announce()
        after = http.get(f"/v1/jobs/{job_id}").json()
    assert before["result"]["choices"][0]["text"] == "Hello"
    assert after == before


def test_a_fleet_with_a_ledger_survives_the_loss_of_redis(sqs_bench: SqsBench, tmp_path: Path) -> None:
    """`headrace up` with SQS: a job is on its way, Redis forgets everything, and the job ends all the same."""
    given = sqs_bench.settings()
    environ = {
        "HEADRACE_LEDGER__URL": given.url,
        "HEADRACE_LEDGER__ENDPOINT_URL": given.endpoint_url,
        "HEADRACE_LEDGER__LOOK_S": "0.1",
        "HEADRACE_QUEUE__LEASE_MS": "1500",
        "HEADRACE_QUEUE__RENEW_MS": "300",
        "HEADRACE_QUEUE__REAP_MS": "200",
    }
    with running(tmp_path, model="fake:speed=50", environ=environ) as fleet, Client(fleet.url) as client:
        marks = DoneMarks(FolderBlobs(fleet.data_dir / "blobs"))
        first = client.submit(model="fake", prompt="a", max_tokens=5, seed=1)
        wait_until(lambda: marks.has(first.id) and sqs_bench.left() == 0, PATIENCE_S, "the mark of a job that is done")
        lost = client.submit(model="fake", prompt="b", max_tokens=100, seed=2)
        wait_until(lambda: fleet.redis.hget(f"hr:job:{lost.id}", "state") == b"RUNNING", PATIENCE_S, "a job that runs")
        fleet.redis.flushall()
        wait_until(lambda: marks.has(lost.id) and sqs_bench.left() == 0, PATIENCE_S, "the mark of a job that was lost")
        mark = marks.get(lost.id)
        assert mark is not None
        assert (mark.state, mark.job.usage and mark.job.usage.completion_tokens) == (State.SUCCEEDED, 100)
