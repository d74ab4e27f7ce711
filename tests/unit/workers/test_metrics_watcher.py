"""What the life of a job leaves in the metrics. Time in hand, facts as the emitter tells them."""

import json
from dataclasses import replace

import pytest

from headrace.contract.errors import ErrorInfo
from headrace.contract.generation import Usage
from headrace.contract.job import Job, JobClass, State
from headrace.queue.base import Ending
from headrace.telemetry.metrics import Recorder
from tests.unit.workers.jobs import make_job
from workers.inference.facts import Claimed, Delivered, Ended, Left, Retried, Why
from workers.inference.metrics_watcher import MOST_TENANTS, OTHERS, MetricsWatcher

DONE = Ending(State.SUCCEEDED, Usage(3, 10))
FAILED = Ending(State.FAILED, Usage(3, 0), error=ErrorInfo("engine_error", "Broken."))
JOB = make_job(created_at=1_000_000, queued_at=1_000_500, leased_at=1_002_000)
LANE = ("m@stable", "standard")
TENANT = ("m@stable", "default", "standard")


class Desk:
    """A watcher with time in hand."""

    def __init__(self) -> None:
        self.now = 50.0
        self.metrics = Recorder()
        self.tell = MetricsWatcher(self.metrics, clock=lambda: self.now)

    def read(self, name: str) -> dict[tuple[str, ...], float]:
        """A counter's values, or a histogram's sums, by labels."""
        labelled = self.metrics.snapshot()["labelled"]
        strings = labelled["strings"]
        rows = labelled["values"].get(name) or labelled["histograms"].get(name, {}).get("series", [])
        return {
            tuple(strings[at] for at in row if isinstance(at, int)): row[-1]
            for row in ([part for part in row if not isinstance(part, list)] for row in rows)
        }


@pytest.fixture
def desk() -> Desk:
    return Desk()


def deliver(desk: Desk, job: Job, after_s: float, tokens: int, *, first: bool = False) -> None:
    desk.now += after_s
    desk.tell(Delivered(job, tokens, first))


def test_times_are_the_stores_before_the_claim_and_the_workers_after_it(desk: Desk) -> None:
    desk.tell(Claimed(JOB))
    deliver(desk, JOB, 0.25, 1, first=True)
    deliver(desk, JOB, 0.9, 9)
    desk.now += 0.05
    desk.tell(Ended(JOB, DONE, State.SUCCEEDED))
    assert desk.read("headrace_job_queue_seconds")[LANE] == pytest.approx(1.5)
    assert desk.read("headrace_job_first_token_seconds")[LANE] == pytest.approx(2.25)
    assert desk.read("headrace_job_token_seconds")[LANE] == pytest.approx(0.1)
    assert desk.read("headrace_job_seconds")[LANE] == pytest.approx(3.2)
    assert desk.read("headrace_jobs_ended_total")[*LANE, "succeeded"] == 1
    assert desk.read("headrace_job_tokens_in_total")[TENANT] == 3
    assert desk.read("headrace_job_tokens_out_total")[TENANT] == 10


def test_a_job_of_two_attempts_has_one_first_token_and_counts_its_prompt_once(desk: Desk) -> None:
    again = replace(JOB, epoch=3, attempt=2, queued_at=1_010_000, leased_at=1_011_000)
    desk.tell(Claimed(JOB))
    deliver(desk, JOB, 1, 4, first=True)
    desk.tell(Left(JOB, Why.ENGINE_DIED))
    desk.tell(Claimed(again))
    deliver(desk, again, 1, 2)
    deliver(desk, again, 2, 4)
    desk.tell(Ended(again, DONE, State.SUCCEEDED))
    assert desk.read("headrace_job_first_token_seconds")[LANE] == pytest.approx(3)
    assert desk.read("headrace_job_seconds")[LANE] == pytest.approx(11 + 3)
    assert desk.read("headrace_job_token_seconds")[LANE] == pytest.approx(0.5)
    assert desk.read("headrace_job_tokens_in_total")[TENANT] == 3
    assert desk.read("headrace_job_tokens_out_total")[TENANT] == 10
    assert desk.read("headrace_jobs_left_total")["engine died",] == 1


def test_time_per_token_is_that_of_one_choice_and_unknown_when_all_came_at_once(desk: Desk) -> None:
    two = make_job("job_2", request=replace(JOB.request, n=2), leased_at=0, created_at=0)
    desk.tell(Claimed(two))
    deliver(desk, two, 1, 2, first=True)
    deliver(desk, two, 1, 20)
    desk.tell(Ended(two, DONE, State.SUCCEEDED))
    assert desk.read("headrace_job_token_seconds")[LANE] == pytest.approx(0.1)
    desk.tell(Claimed(JOB))
    deliver(desk, JOB, 1, 10, first=True)
    desk.tell(Ended(JOB, DONE, State.SUCCEEDED))
    assert desk.read("headrace_job_token_seconds")[LANE] == pytest.approx(0.1)


def test_failures_are_counted_by_state_and_have_no_time_to_the_end(desk: Desk) -> None:
    desk.tell(Claimed(JOB))
    desk.tell(Retried(JOB, ErrorInfo("no_progress", "Stuck."), 1000))
    for epoch, state in ((2, State.FAILED), (4, State.DEAD)):
        job = replace(JOB, epoch=epoch)
        desk.tell(Claimed(job))
        desk.tell(Ended(job, FAILED, state))
    assert desk.read("headrace_jobs_retried_total") == {(*LANE, "no_progress"): 1}
    assert desk.read("headrace_jobs_ended_total") == {(*LANE, "failed"): 1, (*LANE, "dead"): 1}
    assert desk.read("headrace_job_seconds") == {}


def test_tenants_beyond_the_bound_are_counted_together_and_a_beat_stays_small(desk: Desk) -> None:
    sizes = {}
    for number in range(MOST_TENANTS + 10):
        for job_class in JobClass:
            job = replace(JOB, tenant=f"tenant-{number}-of-a-company", job_class=job_class)
            desk.tell(Claimed(job))
            deliver(desk, job, 0.1, 1234, first=True)
            deliver(desk, job, 0.1, 1234)
            desk.tell(Ended(job, DONE, State.SUCCEEDED))
        sizes[number + 1] = len(json.dumps(desk.metrics.snapshot(), separators=(",", ":")))
    out = desk.read("headrace_job_tokens_out_total")
    assert len(out) == (MOST_TENANTS + 1) * len(JobClass)
    assert out["m@stable", OTHERS, "batch"] == 10 * 2468
    assert sizes[3] < 6_000
    assert sizes[MOST_TENANTS + 10] < 20_000
