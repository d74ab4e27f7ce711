"""Jobs for unit tests."""

from dataclasses import replace
from typing import Any

from headrace.contract.generation import FrozenRequest, Sampling
from headrace.contract.job import Job, JobClass, Kind, State


def make_job(name: str = "job_1", **fields: Any) -> Job:
    """A job as a claim gives it."""
    job = Job(
        id=name,
        model="m",
        lane="m@stable",
        revision="r",
        job_class=JobClass.STANDARD,
        kind=Kind.COMPLETION,
        request=FrozenRequest((1, 2, 3), Sampling(seed=1), 100),
        state=State.LEASED,
        lease_id="l1",
        epoch=1,
        kv_tokens=40,
    )
    return replace(job, **fields)
