"""Flower, started for real, sees a worker and its jobs as they run."""

import socket
from pathlib import Path
from typing import Any

import httpx2

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


def test_it_shows_the_worker_and_its_job(fleet: Fleet, tmp_path: Path) -> None:
    processes, port = Processes(fleet, tmp_path), free_port()
    address = ("--address=127.0.0.1", f"--port={port}")
    with (
        processes.running("worker", "workers", "--model", "fake:speed=20"),
        processes.running(
            "flower", "celery", "-A", "workers.celery_app", "flower", *address, FLOWER_UNAUTHENTICATED_API="true"
        ),
    ):
        flower = Flower(port)
        node = eventually(lambda: next(iter(flower.get("workers")), None), "worker seen")
        (beat,) = eventually(lambda: read_beats(fleet.client), "beat")
        assert node == f"headrace@{beat.worker}"
        job_id = fleet.submit_to("fake@stable", fleet.card("fake@stable").revision, "a secret", max_tokens=37)
        eventually(lambda: flower.state(job_id) == "STARTED", "job seen running")
        eventually(lambda: flower.state(job_id) == "SUCCESS", "job seen done")
        task = flower.get("tasks")[job_id]
        assert (task["name"], task["worker"], task["result"]) == ("headrace.job.completion", node, "37 tokens")
        assert task["kwargs"] == "{'model': 'fake', 'class': 'standard', 'prompt_tokens': 8}"
        assert 1.0 < task["runtime"] < 30.0
        assert "secret" not in str(task)
    assert "Traceback" not in processes.log("worker")
