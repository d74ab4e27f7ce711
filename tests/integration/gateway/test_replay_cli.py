"""`headrace replay` against a gateway and a worker that says what it is told to: each verdict and its exit code."""

import json
import threading
from collections.abc import Callable
from typing import Any

import httpx2
import pytest
import redis

from headrace.contract.errors import ErrorInfo
from headrace.contract.job import Job, State
from headrace.store.beats import Beat, write_beat
from tests.integration.gateway.scripted_worker import LANE, MODEL, REVISION, ScriptedWorker
from tests.integration.gateway.serving import Gateway
from tests.unit.cli.test_main import Ran, run

CHAT = {"model": MODEL, "messages": [{"role": "user", "content": "Rivers"}], "max_tokens": 40, "logprobs": True}
SCORED = {"model": MODEL, "prompt": "Rivers", "max_tokens": 40, "logprobs": 2, "echo": True}
UNKNOWN = "job_01hzzzzzzzzzzzzzzzzzzzzzzz"


class Bench:
    def __init__(self, gateway: Gateway, client: httpx2.Client, worker: ScriptedWorker) -> None:
        self.url = gateway.url
        self.client = client
        self.worker = worker
        self.store = worker.client

    def submit(self, body: dict[str, Any]) -> str:
        return str(self.client.post("/v1/jobs", json=body).json()["id"])

    def ended(self, *pieces: str, body: dict[str, Any] = CHAT) -> Job:
        self.submit(body)
        return self.worker.run(*pieces)

    def cancelled(self, *pieces: str) -> Job:
        """One that had said so much."""
        self.submit(CHAT)
        job = self.worker.claim()
        for piece in pieces:
            self.worker.say(job, piece)
        self.client.delete(f"/v1/jobs/{job.id}")
        return job

    def replay(self, job_id: str, *options: str, by: Callable[[], object] | None = None) -> Ran:
        """The command, while a worker does what it is told."""
        doing = threading.Thread(target=by or (lambda: None))
        doing.start()
        try:
            return run("replay", job_id, "--url", self.url, *options)
        finally:
            doing.join()

    def report(self, job_id: str, *options: str, by: Callable[[], object] | None = None) -> tuple[int, dict[str, Any]]:
        ran = self.replay(job_id, "--json", *options, by=by)
        return ran.code, json.loads(ran.out)

    def forget(self, job_id: str, *kept: str) -> None:
        """As retention does."""
        for kind in {"ev", "result"} - {*kept}:
            self.store.delete(f"hr:{kind}:{job_id}")

    def beat(self, digest: str) -> None:
        write_beat(self.store, Beat("w_other", LANE, "ready", REVISION, digest))


@pytest.fixture
def bench(gateway: Gateway, client: httpx2.Client, worker: ScriptedWorker) -> Bench:
    return Bench(gateway, client, worker)


@pytest.mark.parametrize("kept", [("ev", "result"), ("result",)], ids=["from events", "from the result"])
@pytest.mark.parametrize("body", [CHAT, SCORED], ids=["chat", "completion"])
def test_the_same(bench: Bench, body: dict[str, Any], kept: tuple[str, ...]) -> None:
    job = bench.ended(" run", " on", body=body)
    bench.forget(job.id, *kept)
    code, said = bench.report(job.id, by=lambda: bench.worker.run(" ru", "n ", "on"))
    assert (code, said["verdict"], said["exact"], said["tokens"]) == (0, "same", True, 7)
    assert said["digests"] == {"job": ["digest-1"], "replay": ["digest-1"]}
    assert (said["partial"], said["difference"], said["reason"]) == (False, None, None)
    assert bench.worker.state(said["replay"]) is State.SUCCEEDED


def test_for_people(bench: Bench) -> None:
    job = bench.ended(" run", " on")
    ran = bench.replay(job.id, by=lambda: bench.worker.run(" run on"))
    assert ran.out.startswith(f"same: {job.id} and its replay job_")
    assert ran.out.endswith(", 7 tokens compared\n")


@pytest.mark.parametrize("kept", [("ev", "result"), ("result",)], ids=["from events", "from the result"])
def test_the_place_where_it_differs(bench: Bench, kept: tuple[str, ...]) -> None:
    job = bench.ended(" run", " on\nand on")
    bench.forget(job.id, *kept)
    ran = bench.replay(job.id, by=lambda: bench.worker.run(" run", " of\nand on"))
    verdict, place, first, now = ran.out.splitlines()
    assert (ran.code, verdict.split(":")[0]) == (1, "differs")
    assert place == f"choice 0, token 6: {ord('n')} at first, {ord('f')} now"
    assert first.split("  …") == ["  at first", " run o|n⏎and on"]
    assert now.split("  …") == ["  now     ", " run o|f⏎and on"]


def test_an_end_that_comes_earlier_differs(bench: Bench) -> None:
    job = bench.ended(" run", " on")
    code, said = bench.report(job.id, by=lambda: bench.worker.run(" run"))
    assert (code, said["verdict"]) == (1, "differs")
    assert {name: said["difference"][name] for name in ("what", "offset", "first", "second")} == {
        "what": "length",
        "offset": 4,
        "first": ord(" "),
        "second": None,
    }


def test_of_a_cancelled_job_what_it_had_said(bench: Bench) -> None:
    job = bench.cancelled(" run", " on")

    def by_worker() -> None:
        again = bench.worker.claim()
        bench.worker.say(again, " run on and on")

    code, said = bench.report(job.id, by=by_worker)
    assert (code, said["verdict"], said["partial"], said["tokens"]) == (0, "same", True, 7)
    assert bench.worker.state(said["replay"]) is State.CANCELLED, "it went on with nobody to look"
    ran = bench.replay(job.id, by=lambda: bench.worker.say(bench.worker.claim(), " ruin it"))
    assert (ran.code, "ended as cancelled" in ran.err) == (1, True)


def test_a_replay_that_fails_on_the_way_says_nothing_of_the_rest(bench: Bench) -> None:
    job = bench.ended(" run", " on")

    def by_worker() -> None:
        again = bench.worker.claim()
        bench.worker.say(again, " ru")
        bench.worker.fail(again, ErrorInfo("engine_error", "It broke."))

    code, said = bench.report(job.id, by=by_worker)
    assert (code, said["verdict"], said["tokens"]) == (3, "incomparable", 3)
    assert "ended as failed" in said["reason"]
    assert "It broke." in said["reason"]


def test_without_a_worker_of_that_digest_there_is_the_choice(bench: Bench) -> None:
    job = bench.ended(" run", " on")
    bench.beat("digest-2")
    ran = bench.replay(job.id, "--wait", "0")
    assert ran.code == 3
    assert "No worker has the digest digest-1; there are digest-2 (1 worker)." in ran.out
    assert "--any-digest" in ran.out
    assert [view["state"] for view in bench.client.get("/v1/jobs?limit=1").json()["data"]] == ["cancelled"]
    bench.worker.digest = "digest-2"
    code, said = bench.report(job.id, "--any-digest", by=lambda: bench.worker.run(" run", " on"))
    assert (code, said["verdict"], said["exact"]) == (0, "same", False)
    assert said["digests"] == {"job": ["digest-1"], "replay": ["digest-2"]}


def test_without_any_worker(bench: Bench) -> None:
    job = bench.ended(" run", " on")
    ran = bench.replay(job.id, "--wait", "0", "--any-digest")
    assert (ran.code, "No worker serves this model" in ran.out) == (3, True)


def test_a_job_that_ran_under_several_digests(bench: Bench) -> None:
    bench.submit(CHAT)
    first = bench.worker.claim()
    bench.worker.say(first, " run")
    bench.worker.queue.release(first.lease)
    other = ScriptedWorker(bench.store, "w_other")
    other.digest = "digest-2"
    again = other.claim()
    other.rewind(again, 4)
    other.carry_on(again, " on")
    ran = bench.replay(first.id, by=lambda: bench.worker.run(" run", " on"))
    assert (ran.code, "several digests (digest-1, digest-2)" in ran.err) == (0, True)


def test_what_cannot_be_compared(bench: Bench, store: redis.Redis) -> None:
    waiting = bench.submit(CHAT)
    advice = f"headrace: {waiting} has not ended. Follow it: headrace events {waiting}\n"
    assert bench.replay(waiting) == Ran(3, "", advice)
    bench.client.delete(f"/v1/jobs/{waiting}")
    assert "before its first token" in bench.replay(waiting).err
    cancelled = bench.cancelled(" run")
    bench.forget(cancelled.id)
    assert "past its retention" in bench.replay(cancelled.id).err
    gone = bench.ended(" run", " on")
    store.hset(f"hr:job:{gone.id}", "revision", "revision-0")
    code, said = bench.report(gone.id)
    assert (code, said["verdict"], said["job"]) == (3, "incomparable", gone.id)
    assert "revision" in said["reason"]
    for job_id in (UNKNOWN, "job_1"):
        assert (bench.replay(job_id).code, bench.replay(job_id).out) == (3, "")
