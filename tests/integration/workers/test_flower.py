"""Flower, started for real, sees a worker and its jobs as they run."""

import socket
from pathlib import Path
from typing import Any

import httpx2
import pytest

from headrace.store.beats import read_beats
from tests.integration.workers.fleet import Fleet, eventually
from tests.integration.workers.processes import Processes


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Flower:
    """Its HTTP API."""

    def __init__(self, port: int) -> None:
        self._url = f"http://127.0.0.1:{port}"

    def get(self, path: str) -> Any:
        """What it answers; an empty mapping while it is not up."""
        try:
            return httpx2.get(f"{self._url}/api/{path}", timeout=10.0).raise_for_status().json()
        except httpx2.TransportError:
            return {}

    def state(self, job_id: str) -> str:
        return str(self.get("tasks").get(job_id, {}).get("state"))


def test_it_shows_the_worker_and_its_jobs(fleet: Fleet, tmp_path: Path) -> None:
    processes, port = Processes(fleet, tmp_path), free_port()
    address = ("--address=127.0.0.1", f"--port={port}")
    with (
        processes.running("worker", "workers", "--model", "fake:speed=40"),
        processes.running(
            "flower", "celery", "-A", "workers.celery_app", "flower", *address, FLOWER_UNAUTHENTICATED_API="true"
        ),
    ):
        flower = Flower(port)
        # Asked anew each time: it asks workers when it starts, and one that starts together with it may be deaf then.
        node = eventually(lambda: next(iter(flower.get("workers?refresh=1")), None), "worker seen")
        (beat,) = eventually(lambda: read_beats(fleet.client), "beat")
        assert node == f"headrace@{beat.worker}"
        revision = fleet.card("fake@stable").revision
        long, short = (fleet.submit_to("fake@stable", revision, "a secret", max_tokens=n) for n in (1500, 37))
        eventually(lambda: flower.state(long) == "STARTED", "the long one seen running")
        eventually(lambda: flower.state(short) == "SUCCESS", "the short one seen done")
        task = flower.get("tasks")[short]
        assert (task["name"], task["worker"], task["result"]) == ("headrace.job.completion", node, "37 tokens")
        assert task["kwargs"] == "{'model': 'fake', 'class': 'standard', 'prompt_tokens': 8}"
        assert task["received"] <= task["started"] < task["succeeded"]
        assert task["runtime"] == pytest.approx(task["succeeded"] - task["started"], abs=0.01)
        assert "secret" not in str(task)
        assert flower.state(long) == "STARTED"
        fleet.queue.cancel(long)
        eventually(lambda: flower.state(long) == "REVOKED", "the cancel seen")
    assert "Traceback" not in processes.log("worker")
