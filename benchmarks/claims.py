"""What a claim costs Redis, at depths and numbers of tenants: server time, and how even the shares are.

    python -m benchmarks.claims [--rounds 5] [--depth 100000] [--tenants 100]

Floor, by FIELD-NOTES: 32-66 us alone and 14-30 us a job in batches, whatever the depth. The time is the server's own
(`INFO commandstats`), so neither the client nor its neighbours are in it.
"""

import argparse
import random
import statistics
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import redis

from benchmarks import results
from benchmarks.arguments import common
from benchmarks.figures import Figure
from benchmarks.results import say
from benchmarks.table import figures_table
from headrace.contract.generation import FrozenRequest, Sampling
from headrace.contract.ids import new_job_id
from headrace.contract.job import Job, JobClass, Kind
from headrace.queue.base import ClaimRequest, Timing
from headrace.queue.redis import RedisQueue
from headrace.queue.scripts import SCRIPTS
from headrace.store.connection import connect
from tests.redis_server import running_redis

LANE: Final = "m@stable"
CLAIMS: Final = 200
FILL: Final = 500
ENOUGH: Final = 10**9


class Bench:
    """A Redis of its own, filled with jobs of random sizes from so many tenants, one of which has sent half of all."""

    def __init__(self, client: redis.Redis) -> None:
        self._client = client
        self._queue = RedisQueue(client, Timing())
        self._random = random.Random(5)
        self._round = 0

    def fill(self, depth: int, tenants: int) -> None:
        self._client.flushall()
        for script in SCRIPTS.values():
            self._client.script_load(script.source)
        for at in range(0, depth, FILL):
            with self._client.pipeline(transaction=False) as pipe:
                for number in range(at, min(at + FILL, depth)):
                    tenant = 0 if number % 2 else self._random.randrange(tenants)
                    call = self._queue.verbs.accept(self._job(f"tenant-{tenant}"), "")
                    pipe.evalsha(SCRIPTS["accept"].sha, 0, *call.args)
                pipe.execute()

    def claim(self, wanted: int) -> tuple[float, Counter[str]]:
        """Server microseconds of a claim of so many jobs, and the tokens that each tenant got in all of them."""
        shares: Counter[str] = Counter()
        self._client.config_resetstat()
        for _ in range(CLAIMS):
            self._round += 1
            worker = f"w_bench_{self._round}"
            request = ClaimRequest((LANE,), worker, "r", "d", ENOUGH, ENOUGH, wanted)
            for job in self._queue.claim(request):
                shares[job.tenant] += job.kv_tokens
        stats: Any = self._client.info("commandstats")
        return float(stats["cmdstat_evalsha"]["usec_per_call"]), shares

    def bytes_each(self, depth: int) -> float:
        memory: Any = self._client.info("memory")
        return float(memory["used_memory_dataset"]) / depth

    def _job(self, tenant: str) -> Job:
        request = FrozenRequest(tuple(range(self._random.randint(4, 64))), Sampling(7), self._random.randint(16, 512))
        job_class = JobClass.STANDARD
        return Job(new_job_id(), "m", LANE, "r", job_class, Kind.COMPLETION, request, tenant=tenant)


@contextmanager
def bench() -> Iterator[Bench]:
    with running_redis(fsync="everysec") as server, connect(server.url) as client:
        yield Bench(client)


def measure(one: Bench, depth: int, tenants: int, rounds: int) -> Iterator[Figure]:
    where = f"{depth:,} queued, {tenants} tenant{'s'[: tenants > 1]}"
    batches = (1, 8, 32) if depth > max(1, 8, 32) * CLAIMS else (1,)
    costs: dict[int, list[float]] = {wanted: [] for wanted in batches}
    spreads, sizes = [], []
    for _ in range(rounds):
        one.fill(depth, tenants)
        sizes.append(one.bytes_each(depth))
        for wanted in batches:
            cost, shares = one.claim(wanted)
            costs[wanted].append(cost / wanted)
        if tenants > 1:
            spreads.append(max(shares.values()) / min(shares.values()))
    for wanted, values in costs.items():
        yield _told(f"{where}: server time a job, claimed {wanted} at once", values, "us")
    yield _told(f"{where}: memory of a job", sizes, "bytes")
    if spreads:
        yield Figure(f"{where}: largest over smallest share", f"{statistics.median(spreads):.2f}x", tuple(spreads))


def _told(name: str, values: Sequence[float], unit: str) -> Figure:
    return Figure(name, f"{statistics.median(values):.0f} {unit}", tuple(values))


def main(arguments: Sequence[str] | None = None) -> int:
    parser: argparse.ArgumentParser = common(
        "benchmarks.claims", __doc__, rounds=3, output=results.FOLDER / "claims.json"
    )
    parser.add_argument("--depth", type=int, default=100_000)
    parser.add_argument("--tenants", type=int, default=100)
    given = parser.parse_args(arguments)
    figures: list[Figure] = []
    with bench() as one:
        for depth, tenants in ((1_000, 1), (given.depth, 1), (given.depth, given.tenants)):
            for figure in measure(one, depth, tenants, given.rounds):
                say(f"{figure.name}: {figure.shown}")
                figures.append(figure)
    flags = {"rounds": given.rounds, "claims": CLAIMS}
    print(figures_table(results.write_figures(given.output, Path("no model"), flags, figures)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
