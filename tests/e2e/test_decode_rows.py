"""Continuous batching as an operator sees it: 32 streams on one worker decode in one step. Real fleet, real model."""

import itertools
import urllib.request
from pathlib import Path

import pytest

from headrace import Client
from tests.e2e.fleet import running, wait_until


def rows_of_largest_step(page: str) -> float:
    """The upper bound of the highest bucket of `headrace_engine_decode_rows` that any step fell into."""
    buckets = [
        (float(line.split('le="')[1].split('"')[0]), float(line.rsplit(" ", 1)[1]))
        for line in page.splitlines()
        if line.startswith("headrace_engine_decode_rows_bucket")
    ]
    pairs = itertools.pairwise([(0.0, 0.0), *sorted(buckets)])
    return max((bound for (_, before), (bound, count) in pairs if count > before), default=0.0)


@pytest.mark.real_model
@pytest.mark.timeout(240)
def test_32_streams_on_one_worker_share_a_step(tmp_path: Path) -> None:
    with running(tmp_path, model="smollm2-135m-instruct") as fleet, Client(fleet.url) as client:
        jobs = [
            client.submit(model=fleet.model, prompt=f"A tale of {number} mills:", max_tokens=100, temperature=0)
            for number in range(32)
        ]
        for job in jobs:
            job.wait(120)

        def page() -> str:
            with urllib.request.urlopen(f"{fleet.url}/metrics") as answer:
                return str(answer.read(), "utf-8")

        wait_until(lambda: rows_of_largest_step(page()) == 32, 10, "a step with 32 rows")
