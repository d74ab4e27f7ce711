"""Holds the processes of a worker still with SIGSTOP for longer than its leases, and lets them go on: a fence's proof.

    python -m tests.integration.workers.held --hold 30 --lease 10

The rest of the fleet is played here: the jobs are reaped and claimed for somebody else, who writes on. What the journal
has then is all that it may have after the worker has come to itself. The suite does the same with short leases.
"""

import argparse
import os
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from headrace.contract.events import Delta, Event
from headrace.contract.job import Job, State
from headrace.queue.base import Append, ClaimRequest, Outcome, ReapRequest
from headrace.queue.redis import RedisQueue
from headrace.settings import QueueSettings
from headrace.store.beats import Beat, read_beats
from tests.integration.workers.fleet import Fleet, eventually
from tests.integration.workers.processes import Processes
from tests.integration.workers.test_fake_engine_runs import expected
from tests.redis_server import running_redis

OTHER = "w_other"
LONG_MS = 600_000
JOBS, TOKENS = 4, 150
LANE = "fake@stable"


@dataclass(frozen=True, slots=True)
class Held:
    """What a round left: the events of each job when the worker was let go, and once it had looked around."""

    before: Sequence[Sequence[Event]]
    after: Sequence[Sequence[Event]]
    left: int
    """Jobs that the worker has noticed to be another's."""


def hold(fleet: Fleet, processes: Processes, who: str, lease_ms: int, hold_s: float = 0.0) -> Held:
    """`who` is `parent` or `both`. Returns when the worker works again and its jobs have ended as they should."""
    timing = {
        "LEASE_MS": lease_ms,
        "RENEW_MS": lease_ms * 3 // 10,
        "BEAT_MS": 100,
        "REAP_MS": min(1000, lease_ms // 10),
    }
    variables = {f"HEADRACE_QUEUE__{name}": str(value) for name, value in timing.items()}
    with processes.running("worker", "workers", "--model", "fake:speed=100", **variables) as worker:
        _beat(fleet, ready=True)
        revision = fleet.card(LANE).revision
        prompts = [f"job {number}" for number in range(JOBS)]
        ids = [fleet.submit_to(LANE, revision, prompt, TOKENS) for prompt in prompts]
        eventually(lambda: all(fleet.running(job_id, 5) for job_id in ids), "tokens")
        family = [psutil.Process(worker.pid), *(psutil.Process(worker.pid).children() if who == "both" else [])]
        for process in family:
            process.send_signal(signal.SIGSTOP)
        stopped_at = time.monotonic()
        try:
            jobs = _take_over(fleet, lease_ms, ids, revision)
            for job, prompt in zip(jobs, prompts, strict=True):
                _write_on(fleet, job, prompt)
            time.sleep(max(0.0, hold_s - (time.monotonic() - stopped_at)))
            before = [fleet.events(job_id) for job_id in ids]
            beaten_at = max((beat.at for beat in read_beats(fleet.client)), default=0)
        finally:
            for process in reversed(family):
                process.send_signal(signal.SIGCONT)
        eventually(lambda: (beat := _beat(fleet)).at > beaten_at and beat.held == 0 and _left(beat) >= JOBS, "a look")
        after = [fleet.events(job_id) for job_id in ids]
        for job, prompt in zip(jobs, prompts, strict=True):
            assert fleet.queue.release(job.lease).outcome is Outcome.OK
            ended = fleet.ended(job.id)
            assert (ended.state, ended.retries, ended.attempt >= 3) == (State.SUCCEEDED, 0, True)
            assert fleet.token_ids(job.id) == expected(prompt, TOKENS)
        return Held(before, after, _left(_beat(fleet)))


def _beat(fleet: Fleet, *, ready: bool = False) -> Beat:
    def found() -> Beat | None:
        return next((beat for beat in read_beats(fleet.client) if not ready or beat.state == "ready"), None)

    return eventually(found, "a beat")


def _left(beat: Beat) -> int:
    rows = beat.metrics["labelled"]["values"].get("headrace_jobs_left_total", [])
    return int(sum(row[-1] for row in rows))


def _take_over(fleet: Fleet, lease_ms: int, ids: Sequence[str], revision: str) -> list[Job]:
    """Reap as any gateway does, and claim for another worker, whose own leases are long."""
    reaper = RedisQueue(fleet.client, QueueSettings(lease_ms=lease_ms, renew_ms=50, reap_ms=50).timing())

    def back() -> bool:
        reaper.reap(ReapRequest())
        return all(fleet.get(job_id).state is State.QUEUED for job_id in ids)

    eventually(back, "jobs back", limit_s=60.0)
    other = RedisQueue(fleet.client, QueueSettings(lease_ms=LONG_MS).timing())
    jobs = other.claim(ClaimRequest((LANE,), OTHER, revision, "fake", 1_000_000, 1_000_000, len(ids)))
    assert {job.id for job in jobs} == set(ids)
    return sorted(jobs, key=lambda job: ids.index(job.id))


def _write_on(fleet: Fleet, job: Job, prompt: str) -> None:
    (at,) = job.next_offset
    delta = Delta(0, 0, at, expected(prompt, at + 3)[at:])
    (reply,) = fleet.queue.append([Append(job.lease, (delta,))])
    assert reply.outcome is Outcome.OK


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--hold", type=float, default=30.0, help="seconds")
    parser.add_argument("--lease", type=float, default=10.0, help="seconds")
    given = parser.parse_args()
    for who in ("parent", "both"):
        with running_redis() as server, tempfile.TemporaryDirectory(prefix="hr-") as folder:
            held = hold(Fleet(server), Processes(Fleet(server), Path(folder)), who, int(given.lease * 1000), given.hold)
        written = sum(len(events) for events in held.after) - sum(len(events) for events in held.before)
        sys.stdout.write(f"{who} held for {given.hold:g} s: {written} events afterwards, {held.left} jobs let go\n")
        if held.after != held.before:
            return os.EX_SOFTWARE
    return 0


if __name__ == "__main__":
    sys.exit(main())
