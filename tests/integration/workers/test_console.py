"""Celery's console on a real worker process: what it answers, and what it does when told."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from celery import Celery

from headrace.contract.ids import new_job_id
from headrace.contract.job import State
from headrace.settings import RedisSettings
from headrace.store.beats import read_beats
from tests.integration.workers.fleet import Fleet, eventually
from tests.integration.workers.processes import LIMIT_S, Processes
from workers.celery_app import make_app


@pytest.fixture
def app(fleet: Fleet) -> Iterator[Celery]:
    app = make_app(RedisSettings(url=fleet.server.url))
    yield app
    app.close()


def state(fleet: Fleet, expected: str) -> str | None:
    """The id of the worker once its beat says so."""
    return next((beat.worker for beat in read_beats(fleet.client) if beat.state == expected), None)


def ask(app: Celery, node: str, command: str, **arguments: Any) -> Any:
    """The one answer of one node."""
    replies = app.control.broadcast(command, arguments, destination=[node], reply=True, timeout=LIMIT_S, limit=1)
    return replies[0][node]


def test_it_answers_and_obeys(fleet: Fleet, app: Celery, tmp_path: Path) -> None:
    processes = Processes(fleet, tmp_path)
    with processes.running("worker", "workers", "--model", "fake:speed=40") as worker:
        node = f"headrace@{eventually(lambda: state(fleet, 'ready'), 'ready')}"
        # The engine may be ready before Celery listens.
        eventually(lambda: app.control.ping(destination=[node], timeout=1.0, limit=1), "pong")
        revision = fleet.card("fake@stable").revision
        assert ask(app, node, "step_age") == {"ms": None}
        first = fleet.submit_to("fake@stable", revision, max_tokens=1500)
        eventually(lambda: fleet.running(first), "tokens")

        capacity = ask(app, node, "capacity")
        tokens = capacity["kv_tokens"]
        assert (capacity["lane"], capacity["state"]) == ("fake@stable", "ready")
        assert capacity["jobs"] == {"held": 1, "max": 32}
        assert tokens["whole"] == 8192
        assert tokens["held"] + tokens["free"] == 8192
        assert tokens["held"] > 0
        lease = ask(app, node, "leases")[first]
        assert (lease["attempt"], lease["epoch"]) == (1, fleet.get(first).epoch)
        assert lease["age_ms"] > 0
        assert 0 < lease["tokens_journaled"] <= fleet.offset(first)
        assert isinstance(ask(app, node, "step_age")["ms"], int)

        # As a person would say it, from any folder.
        said = processes.celery("control", "pause", "--destination", node, "--json")
        assert "paused" in json.loads(said.stdout)[0][node]["ok"], said.stderr
        eventually(lambda: state(fleet, "paused"), "paused")
        second = fleet.submit_to("fake@stable", revision, max_tokens=1500)
        before = fleet.offset(first)
        eventually(lambda: fleet.offset(first) > before + 40, "the first goes on")
        assert fleet.get(second).state is State.QUEUED
        assert "ok" in ask(app, node, "resume")
        eventually(lambda: fleet.running(second), "the second runs")
        eventually(lambda: state(fleet, "ready"), "ready again")

        assert ask(app, node, "cancel", job=second) == {"ok": f"{second} is cancelled"}
        assert fleet.get(second).state is State.CANCELLED
        assert ask(app, node, "cancel", job=second) == {"ok": f"{second} is cancelled"}
        assert "there is no job" in ask(app, node, "cancel", job=new_job_id())["error"]
        assert "no job id" in ask(app, node, "cancel", job="*")["error"]
        eventually(lambda: list(ask(app, node, "leases")) == [first], "the second is gone")

        assert "ok" in ask(app, node, "drain")
        assert worker.wait(LIMIT_S) == 0
        job = fleet.get(first)
        assert (job.state, job.deaths_total, job.retries) == (State.QUEUED, 0, 0)
    assert "Traceback" not in processes.log("worker")
