"""Kill `headrace up` itself in the middle of work, start it again on the same data, and ask the same of every job.

python -m tests.chaos.supervisor --seeds 10

With it goes all that it had started, its Redis included; what was accepted is on disk.
"""

import argparse
import asyncio
import random
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

from headrace.queue.redis import RedisQueue
from headrace.settings import load
from headrace.store.connection import connect
from headrace.store.payloads import open_payloads
from tests.chaos import orders
from tests.chaos.customers import Customers
from tests.chaos.ground import LEASE_MS
from tests.chaos.oracle import Receipt, Verdict, judge
from tests.chaos.orders import Order
from tests.chaos.points import FAKE, MODEL_FAKE
from tests.chaos.reading import Reader
from tests.chaos.several import Inside
from tests.e2e.fleet import Fleet

PATIENCE_S = 180.0
LONGEST_S = 1.0
"""After the first order, until the kill."""

VARIABLES = {
    "HEADRACE_QUEUE__LEASE_MS": str(LEASE_MS),
    "HEADRACE_QUEUE__RENEW_MS": str(LEASE_MS // 4),
    "HEADRACE_QUEUE__REAP_MS": "100",
    "HEADRACE_GATEWAY__PING_S": "1",
    "HEADRACE_BLOBS__THRESHOLD_BYTES": "1000",
}


class House:
    """A fleet that is killed whole and comes back, on one folder. Close it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        variables = {**VARIABLES, "HEADRACE_PATHS__DATA_DIR": str(folder / "data")}
        self._settings = load(environ=variables, dotenv=Path("/nonexistent"))
        self._payloads = open_payloads(self._settings)
        self._fleet = self._start()

    def close(self) -> None:
        self._fleet.stop()

    def urls(self) -> Sequence[str]:
        return [self._fleet.url]

    def submit(self, order: Order) -> str:
        """An order of several choices. Raises StoreUnavailable while Redis is away."""
        with self._queue() as queue:
            return Inside(queue).submit(order)

    def kill(self) -> None:
        """SIGKILL to the supervisor alone. Returns when another one has taken over."""
        family = self._fleet.family()
        self._fleet.process.kill()
        self._fleet.process.wait()
        for process in family[1:]:
            process.wait(PATIENCE_S)
        self._fleet.redis.close()
        self._fleet = self._start()

    def judge(self, receipts: Sequence[Receipt]) -> Verdict:
        """Once every job has ended and every worker is idle, or never will."""
        with self._queue() as queue:
            reader = Reader(queue.client, self._payloads)
            give_up_at = time.monotonic() + PATIENCE_S
            while time.monotonic() < give_up_at:
                if not reader.unfinished() and reader.idle(self._fleet.workers()):
                    break
                time.sleep(0.02)
            verdict = judge(receipts, reader.snapshot(self._fleet.workers()))
            reader.forget()
            return verdict

    def _start(self) -> Fleet:
        fleet = Fleet(self._folder, model=FAKE, workers=2, environ=VARIABLES)
        fleet.wait_for_workers(2)
        return fleet

    @contextmanager
    def _queue(self) -> Iterator[RedisQueue]:
        with closing(connect(self._fleet.redis_url)) as client:
            yield RedisQueue(client, self._settings.queue.timing(), payloads=self._payloads)


async def play(house: House, seed: int) -> Verdict:
    """One round: orders, the kill, and the same house again."""
    dice = random.Random(f"supervisor/{seed}")
    customers = Customers(house.urls, house.submit, patience_s=PATIENCE_S)
    try:
        served = asyncio.gather(*(customers.serve(order) for order in orders.wave(seed, 0, MODEL_FAKE)))
        await asyncio.sleep(dice.uniform(0, LONGEST_S))
        await asyncio.to_thread(house.kill)
        return house.judge(await served)
    finally:
        await customers.close()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first-seed", type=int, default=0)
    given = parser.parse_args()
    faults, jobs, tokens, resumed, began = 0, 0, 0, 0, time.monotonic()
    with tempfile.TemporaryDirectory(prefix="hr-") as folder, closing(House(Path(folder))) as house:
        for seed in range(given.first_seed, given.first_seed + given.seeds):
            verdict = asyncio.run(play(house, seed))
            faults, jobs, tokens = faults + len(verdict.faults), jobs + verdict.jobs, tokens + verdict.tokens
            resumed += verdict.resumed
            for fault in verdict.faults:
                sys.stderr.write(f"supervisor seed {seed}: {fault}\n")
    sys.stdout.write(
        f"supervisor       rounds {given.seeds:3}  kills {given.seeds:3}  jobs {jobs:5}  tokens {tokens:7}"
        f"  resumed {resumed:4}  faults {faults}  {time.monotonic() - began:6.1f} s\n"
    )
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
