"""What a noisy tenant costs a quiet one: the same jobs alone and beside ten times as many of another, on one worker.

    python -m benchmarks.noisy [--seconds 30] [--rounds 3]

The fake engine takes SLOTS jobs at once, each half a second long. The quiet tenant asks for a quarter of what that can
do, the noisy one for two and a half times all of it, so the worker is full and a backlog grows. Arrivals are either
random, or heaps of some seconds' jobs at once: a heap waits for itself when it is alone, and half of the worker takes
twice as long over it.

The wait is from acceptance to the last token, by the server's clock. The time to the first token is told beside it: it
is next to nothing on an idle worker, and on a full one at least the time until a slot is free, whoever comes next.
"""

import random
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Final

import psutil
import redis

from benchmarks import results
from benchmarks.arguments import common
from benchmarks.figures import Figure
from benchmarks.results import say
from benchmarks.serving.record import record
from benchmarks.serving.stand import standing, working
from headrace.contract.generation import FrozenRequest, Sampling
from headrace.contract.ids import new_job_id
from headrace.contract.job import Job, JobClass, Kind
from headrace.queue.base import Timing
from headrace.queue.redis import RedisQueue
from headrace.store.cards import Release, read_releases

BAR: Final = "≤ 2x"
SLOTS: Final = 8
TOKENS: Final = 50
STEPS_PER_S: Final = 100.0
QUIET_SHARE: Final = 0.25
NOISE: Final = 10
HEAP_S: Final = 5.0
"""Of how many seconds a heap holds the jobs."""

_PATIENCE_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class Waits:
    """Of the quiet tenant's jobs, in seconds."""

    jobs: int
    first_p50_s: float
    first_p95_s: float
    end_p50_s: float
    end_p95_s: float


@dataclass(frozen=True, slots=True)
class Arrival:
    at_s: float
    tenant: str


def capacity() -> float:
    """Jobs a second that the worker can do."""
    return SLOTS * STEPS_PER_S / TOKENS


def arrivals(tenant: str, rate: float, seconds: float, source: random.Random, heaps: bool) -> Iterator[Arrival]:
    """When a tenant's jobs come: at random times, or HEAP_S seconds' jobs at once."""
    if heaps:
        for heap in range(int(seconds / HEAP_S)):
            yield from (Arrival(heap * HEAP_S, tenant) for _ in range(round(rate * HEAP_S)))
        return
    at_s = source.expovariate(rate)
    while at_s < seconds:
        yield Arrival(at_s, tenant)
        at_s += source.expovariate(rate)


def run(client: redis.Redis, release: Release, plan: Sequence[Arrival]) -> Waits:
    """Hand in as planned, wait until the quiet tenant's jobs have ended, then take away what is left of the others."""
    queue, jobs = RedisQueue(client, Timing()), []
    began = time.monotonic()
    for arrival in plan:
        time.sleep(max(0.0, began + arrival.at_s - time.monotonic()))
        job = _job(release, arrival.tenant)
        queue.accept(job)
        jobs.append(job)
    quiet = [job.id for job in jobs if job.tenant == "quiet"]
    ended = _ended(queue, quiet)
    for job in jobs:
        if job.tenant != "quiet":
            queue.cancel(job.id)
    firsts = sorted((job.first_token_at or 0) - (job.created_at or 0) for job in ended)
    ends = sorted((job.ended_at or 0) - (job.created_at or 0) for job in ended)
    return Waits(len(quiet), _part(firsts, 50), _part(firsts, 95), _part(ends, 50), _part(ends, 95))


def _part(sorted_ms: Sequence[int], percent: int) -> float:
    return sorted_ms[len(sorted_ms) * percent // 100] / 1000


def _ended(queue: RedisQueue, ids: Sequence[str]) -> list[Job]:
    """Raises TimeoutError."""
    found: list[Job] = []
    give_up_at = time.monotonic() + _PATIENCE_S
    for job_id in ids:
        while (job := queue.get(job_id)) is None or not job.ended:
            if time.monotonic() > give_up_at:
                raise TimeoutError(f"{job_id} has not ended {_PATIENCE_S:g} s after the last one came")
            time.sleep(0.02)
        found.append(job)
    return found


def _job(release: Release, tenant: str) -> Job:
    request = FrozenRequest((104, 105), Sampling(seed=1), TOKENS)
    card = release.card
    return Job(
        new_job_id(),
        card.id,
        release.lane,
        card.revision,
        JobClass.STANDARD,
        Kind.COMPLETION,
        request,
        tenant=tenant,
    )


def compare(client: redis.Redis, heaps: bool, seconds: float, seed: int) -> tuple[Waits, Waits]:
    """The quiet tenant alone, and beside the noisy one; its jobs come at the same times."""
    (release,) = read_releases(client)
    rate = QUIET_SHARE * capacity()
    quiet = list(arrivals("quiet", rate, seconds, random.Random(seed), heaps))
    noisy = list(arrivals("noisy", rate * NOISE, seconds, random.Random(~seed), heaps))
    # Of two heaps that come at once, the noisy one is there first.
    both = sorted(noisy + quiet, key=lambda arrival: arrival.at_s)
    alone = run(client, release, quiet)
    return alone, run(client, release, both)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = common("benchmarks.noisy", __doc__, rounds=3, output=results.FOLDER / "noisy.json")
    parser.add_argument("--seconds", type=float, default=30.0, help="of arrivals")
    given = parser.parse_args(arguments)
    runs, figures = [], []
    environ = {"HEADRACE_WORKER__MAX_JOBS": str(SLOTS)}
    with (
        standing("everysec") as stand,
        working(stand, f"fake:speed={STEPS_PER_S:g}", environ) as worker,
        redis.Redis.from_url(stand.redis_url) as client,
    ):
        for heaps in (False, True):
            pairs = []
            for seed in range(given.rounds):
                alone, beside = compare(client, heaps, given.seconds, seed)
                say(f"heaps={heaps} {alone} {beside}")
                runs.append({"heaps": heaps, "alone": asdict(alone), "beside": asdict(beside)})
                pairs.append((alone, beside))
            figures += _told(heaps, pairs)
        say(f"the worker has used {_cpu_s(worker):.1f} s of CPU")
    record(given.output, "no model", {"seconds": given.seconds, "rounds": given.rounds}, runs, figures)
    return 0


def _cpu_s(worker: psutil.Process) -> float:
    used = [process.cpu_times() for process in (worker, *worker.children(recursive=True))]
    return float(sum(times.user + times.system for times in used))


def _told(heaps: bool, pairs: Sequence[tuple[Waits, Waits]]) -> list[Figure]:
    how = "in heaps" if heaps else "at random"
    ratios = [beside.end_p95_s / alone.end_p95_s for alone, beside in pairs]
    alone, beside = (statistics.median(each[side].end_p95_s for each in pairs) for side in (0, 1))
    first = [statistics.median(each[side].first_p95_s for each in pairs) for side in (0, 1)]
    shown = f"{statistics.median(ratios):.2f}x ({alone:.2f} s, {beside:.2f} s)"
    return [
        Figure(
            f"jobs come {how}: the quiet tenant's p95 wait beside a noisy one over alone", shown, tuple(ratios), BAR
        ),
        Figure(f"jobs come {how}: p95 to its first token, alone and beside", f"{first[0]:.2f} s, {first[1]:.2f} s", ()),
    ]


if __name__ == "__main__":
    sys.exit(main())
