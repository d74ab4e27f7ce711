"""Continuous batching as an operator sees it: 32 streams on one worker decode in one step. Tiny model, real fleet."""

import itertools
import urllib.request
from pathlib import Path

import pytest

from headrace import Client
from tests.e2e.fleet import running, wait_until
from tests.tiny_model import write_tiny_model


def rows_of_largest_step(page: str) -> float:
    """The upper bound of the highest bucket of `headrace_engine_decode_rows` that any step fell into."""
    buckets = [
        (float(line.split('le="')[1].split('"')[0]), float(line.rsplit(" ", 1)[1]))
        for line in page.splitlines()
        if line.startswith("headrace_engine_decode_rows_bucket")
    ]
    pairs = itertools.pairwise([(0.0, 0.0), *sorted(buckets)])
    return max((bound for (_, before), (bound, count) in pairs if count > before), default=0.0)


@pytest.mark.timeout(120)
def test_32_streams_on_one_worker_share_a_step(tmp_path: Path) -> None:
    model = write_tiny_model(tmp_path / "tiny.gguf", context_length=1024)
    with running(tmp_path, model=f"file:{model}") as fleet, Client(fleet.url) as client:
        jobs = [
            client.submit(model=fleet.model, prompt="corn", max_tokens=900, temperature=1.5, seed=seed)
            for seed in range(32)
        ]
        for job in jobs:
            job.wait(90)

        def page() -> str:
            with urllib.request.urlopen(f"{fleet.url}/metrics") as answer:
                return str(answer.read(), "utf-8")

        wait_until(lambda: rows_of_largest_step(page()) == 32, 10, "a step with 32 rows")
