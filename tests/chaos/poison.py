"""One request among many that kills, hangs or fails its engine: it is given up, and its neighbours finish.

python -m tests.chaos.poison --seeds 10

The fake engine strikes the request whose prompt begins with one byte; what the others answer is known beforehand.
"""

import argparse
import asyncio
import random
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

from headrace.contract.job import State
from tests.chaos import orders
from tests.chaos.customers import Customers
from tests.chaos.ground import Ground, running
from tests.chaos.oracle import Verdict, judge
from tests.chaos.orders import Mode, Order
from tests.chaos.several import Inside

BEAST = "!"
NEIGHBOURS = 31
MOST_DEATHS = 3
LEASE_MS = 1000


@dataclass(frozen=True, slots=True)
class Kind:
    """`knob` is the fake engine's; `code` the error that the job ends with, after at most so many `deaths`."""

    name: str
    knob: str
    code: str
    deaths: int = MOST_DEATHS


KINDS = (
    Kind("poison", "crash_at", "poison"),
    Kind("hang", "hang_at", "poison"),
    Kind("error", "error_at", "retries_exhausted", deaths=0),
)


@dataclass(frozen=True, slots=True)
class Given:
    """How a round ended: deaths of engines seen while it ran, and what the job that killed them ended with."""

    kind: str
    seed: int
    verdict: Verdict
    deaths: int
    code: str
    seconds: float

    def good(self, kind: Kind) -> bool:
        return not self.verdict.faults and self.deaths <= kind.deaths and self.code == kind.code


@contextmanager
def fleet(kind: Kind) -> Iterator[Ground]:
    """Engines that are killed after a second without a step."""
    model = f"fake:speed=300,poison={ord(BEAST)},{kind.knob}=5"
    with running(model, gateways=1, lease_ms=LEASE_MS, HEADRACE_WORKER__PROGRESS_TIMEOUT_S="1") as ground:
        yield ground


async def play(ground: Ground, kind: Kind, seed: int, neighbours: int = NEIGHBOURS) -> Given:
    """One round: a beast somewhere among its neighbours."""
    began = time.monotonic()
    dice = random.Random(f"{kind.name}/{seed}")
    served = list(orders.wave(seed, 0, "fake", jobs=neighbours))
    served.insert(dice.randrange(len(served)), _beast(seed, dice))
    customers = Customers(ground.urls, Inside(ground.queue).submit)
    serving = asyncio.gather(*(customers.serve(order) for order in served))
    try:
        while not serving.done():
            ground.look()
            await asyncio.sleep(0.01)
        receipts = serving.result()
        while not ground.whole():
            await asyncio.sleep(0.01)
    finally:
        await customers.close()
    snapshot = ground.reader.snapshot(ground.living)
    ground.reader.forget()
    (dead,) = (kept.job for kept in snapshot.jobs.values() if kept.job.state is State.DEAD)
    code = dead.error.code if dead.error else ""
    deaths = max(kept.job.deaths_total for kept in snapshot.jobs.values())
    return Given(kind.name, seed, judge(receipts, snapshot), deaths, code, time.monotonic() - began)


def _beast(seed: int, dice: random.Random) -> Order:
    body = {
        "model": "fake",
        "prompt": f"{BEAST} the beast",
        "max_tokens": 40,
        "seed": seed,
        "n": 1,
        "class": dice.choice(orders.CLASSES),
    }
    beast = Order(99, body, dice.choice((Mode.STREAM, Mode.POLL)), f"beast-{seed}-{dice.randrange(2**60)}")
    answers = orders.undisturbed(body)
    return replace(beast, answers=answers, prompt_tokens=len(BEAST) + 10, may_end=frozenset({State.DEAD}))


def try_kind(kind: Kind, seeds: Sequence[int]) -> Iterator[Given]:
    for seed in seeds:
        # A fleet for each: an engine whose deaths follow each other fast is started later and later.
        with fleet(kind) as ground:
            yield asyncio.run(play(ground, kind, seed))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first-seed", type=int, default=0)
    given = parser.parse_args()
    bad = 0
    for kind in KINDS:
        done = list(try_kind(kind, range(given.first_seed, given.first_seed + given.seeds)))
        wrong = [each for each in done if not each.good(kind)]
        bad += len(wrong)
        jobs, tokens = sum(each.verdict.jobs for each in done), sum(each.verdict.tokens for each in done)
        sys.stdout.write(
            f"{kind.name:8} rounds {len(done):3}  jobs {jobs:5}  tokens {tokens:7}  most deaths "
            f"{max(each.deaths for each in done)}  wrong {len(wrong)}  {sum(each.seconds for each in done):6.1f} s\n"
        )
        for each in wrong:
            faults = "\n    ".join(map(str, each.verdict.faults[:20]))
            sys.stderr.write(f"{kind.name} seed {each.seed}: {each.deaths} deaths, {each.code}\n    {faults}\n")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
