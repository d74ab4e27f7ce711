"""Where processes die: named points over all rules of the protocol, each tried with as many seeds as are asked for.

python -m tests.chaos.points --seeds 50             # the fake engine: every point, fifty rounds each
python -m tests.chaos.points --real --seeds 5       # the real model
python -m tests.chaos.points --points append.after --first-seed 17 --seeds 1 --verbose

One line for each point; the exit code says whether anything was lost, repeated or different.
"""

import argparse
import asyncio
import json
import shutil
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, closing, nullcontext
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path

from benchmarks.machine import commit, machine, today
from tests.chaos import orders, rounds
from tests.chaos.drama import Point, Trouble, Who
from tests.chaos.ground import LEASE_MS, Ground, running
from tests.chaos.orders import Order
from tests.chaos.rounds import Round
from tests.chaos.undisturbed import Undisturbed

FAKE, MODEL_FAKE = "fake:speed=400", "fake"
REAL = "smollm2-135m-instruct"
REAL_LEASE_MS = 2000
"""What workers are told to load; requests call the fake engine's model `fake`."""

POINTS = (
    Point("accept.before", Who.GATEWAY, "accept.before", 4, "12: no record, no job"),
    Point("accept.after", Who.GATEWAY, "accept.after", 4, "12: written, and no 202"),
    Point("accept.shelved", Who.GATEWAY, "accept.shelved", 1, "12, 13: the prompt lies in the blob store, no record"),
    Point("relay", Who.GATEWAY, "relay", 12, "3: an event in its hands"),
    Point("cancel.before", Who.GATEWAY, "cancel.before", 1, "5"),
    Point("cancel.after", Who.GATEWAY, "cancel.after", 1, "5: ended, and nobody told"),
    Point("claim.before", Who.WORKER, "claim.before", 2, "1, 11"),
    Point("claim.after", Who.WORKER, "claim.after", 2, "1, 6: claimed, and not begun"),
    Point("append.before", Who.WORKER, "append.before", 10, "2, 3, 15"),
    Point("append.middle", Who.WORKER, "append.middle", 3, "2, 3: half of a pipeline"),
    Point("append.after", Who.WORKER, "append.after", 10, "2, 3: journaled, and not heard"),
    Point("append.lost", Who.WORKER, "append.lost", 10, "2: acknowledged by a store that loses its tail"),
    Point("renew.before", Who.WORKER, "renew.before", 3, "6"),
    Point("renew.after", Who.WORKER, "renew.after", 3, "6"),
    Point("retry.before", Who.WORKER, "retry.before", 1, "9", Trouble.ERROR),
    Point("retry.after", Who.WORKER, "retry.after", 1, "7, 9", Trouble.ERROR),
    Point("release.before", Who.WORKER, "release.before", 2, "1, drain", Trouble.DRAIN),
    Point("release.after", Who.WORKER, "release.after", 2, "1, drain", Trouble.DRAIN),
    Point("finish.before", Who.WORKER, "finish.before", 4, "4: all tokens journaled"),
    Point("finish.shelved", Who.WORKER, "finish.shelved", 1, "4, 13: the result lies in the blob store"),
    Point("finish.after", Who.WORKER, "finish.after", 4, "1, 5: ended, and not heard"),
    Point("child.start", Who.ENGINE, "child.start", 1, "8: before it is ready", Trouble.RESTART),
    Point("child.prefill", Who.ENGINE, "child.prefill", 3, "8"),
    Point("child.step", Who.ENGINE, "child.step", 20, "8: within a decode step"),
    Point("child.last", Who.ENGINE, "child.last", 3, "4, 8: the last token, and nobody told"),
    Point("bury.before", Who.WORKER, "bury.before", 1, "8: with its engine", Trouble.CRASH),
    Point("bury.after", Who.WORKER, "bury.after", 1, "8: with its engine", Trouble.CRASH),
    Point("reap.before", Who.SWEEPER, "reap.before", 8, "7", Trouble.HOST),
    Point("reap.middle", Who.SWEEPER, "reap.middle", 1, "7: one of several", Trouble.HOST),
    Point("reap.after", Who.SWEEPER, "reap.after", 1, "7", Trouble.HOST),
    Point("stop.parent", Who.WORKER, "", 0, "1, 6: SIGSTOP, SIGCONT, and then wrong tokens", Trouble.STOP),
    Point("stop.child", Who.ENGINE, "", 0, "6: SIGSTOP, SIGCONT", Trouble.STOP),
    Point("stop.gateway", Who.GATEWAY, "", 0, "3, 7: SIGSTOP, SIGCONT", Trouble.STOP),
)

LOST = ("lost job", "missing", "result", "client")
REPEATED = ("repeated", "job twice", "ended twice")
DIFFERENT = ("different", "finish reason", "usage", "seq")
LEFT = ("leftover", "leaked key")


@dataclass
class Line:
    """What all rounds of one point come to."""

    point: str
    rules: str
    rounds: int = 0
    jobs: int = 0
    tokens: int = 0
    struck: int = 0
    resumed: int = 0
    lost: int = 0
    repeated: int = 0
    different: int = 0
    left_over: int = 0
    seconds: float = 0.0
    failing_seeds: list[int] = field(default_factory=list)

    def add(self, done: Round) -> None:
        verdict = done.verdict
        self.rounds += 1
        self.jobs += verdict.jobs
        self.tokens += verdict.tokens
        self.struck += len(done.struck)
        self.resumed += verdict.resumed
        self.lost += verdict.count(*LOST)
        self.repeated += verdict.count(*REPEATED)
        self.different += verdict.count(*DIFFERENT)
        self.left_over += verdict.count(*LEFT)
        self.seconds = round(self.seconds + done.seconds, 2)
        if verdict.faults:
            self.failing_seeds.append(done.seed)

    @property
    def good(self) -> bool:
        """Nothing is wrong, and the point was come to in most rounds: one that is never come to proves nothing."""
        return not self.failing_seeds and self.struck * 2 > self.rounds

    def text(self) -> str:
        return (
            f"{self.point:16} rounds {self.rounds:3}  kills {self.struck:3}  jobs {self.jobs:5}  tokens {self.tokens:7}"
            f"  resumed {self.resumed:4}  lost {self.lost}  repeated {self.repeated}  different {self.different}"
            f"  left over {self.left_over}  {self.seconds:6.1f} s"
        )


@dataclass(frozen=True, slots=True)
class Sitting:
    """How points are to be tried."""

    seeds: range
    real: bool
    jobs: int
    verbose: bool = False
    evidence: Path | None = None

    @property
    def flags(self) -> str:
        return " --real" if self.real else ""


class Fleets:
    """One fleet after the other: one in which something went wrong is left for a new one. Close it."""

    def __init__(self, sitting: Sitting) -> None:
        self._sitting = sitting
        self._stack = ExitStack()
        self._ground: Ground | None = None
        self._undisturbed = Undisturbed(partial(self._draw, number=0))

    def close(self) -> None:
        self._ground = None
        self._stack.close()

    async def play(self, point: Point, seed: int) -> Round:
        """One round on a fleet that is whole."""
        if self._ground is None:
            model, lease_ms = (REAL, REAL_LEASE_MS) if self._sitting.real else (FAKE, LEASE_MS)
            self._ground = self._stack.enter_context(running(model, lease_ms=lease_ms))
        ground, waves = self._ground, partial(self._draw, seed)
        if self._sitting.real:
            await self._undisturbed.learn(ground, seed)
            waves = partial(self._undisturbed.wave, seed)
        done = await rounds.play(ground, [point], seed, waves)
        _tell(done, ground, self._sitting)
        if done.verdict.faults or not ground.whole():
            self.close()
        return done

    def _draw(self, seed: int, number: int) -> Sequence[Order]:
        sitting = self._sitting
        return orders.wave(seed, number, REAL if sitting.real else MODEL_FAKE, jobs=sitting.jobs, real=sitting.real)


def try_point(point: Point, sitting: Sitting, fleets: Fleets | None = None) -> Line:
    """All seeds, on fleets of its own unless there are some."""
    line = Line(point.name, point.rules)
    with closing(fleets or Fleets(sitting)) if fleets is None else nullcontext(fleets) as own:
        for seed in sitting.seeds:
            line.add(asyncio.run(own.play(point, seed)))
    return line


def _tell(done: Round, ground: Ground, sitting: Sitting) -> None:
    name = "+".join(done.points)
    if sitting.verbose:
        sys.stderr.write(f"{name} seed {done.seed}: {done.seconds:.2f} s{'' if done.struck else ', not struck'}\n")
    if not done.verdict.faults:
        return
    again = f"python -m tests.chaos.points{sitting.flags} --points {name} --first-seed {done.seed} --seeds 1"
    told = "\n".join(f"    {fault}" for fault in done.verdict.faults[:20])
    sys.stderr.write(f"{name} seed {done.seed}: {len(done.verdict.faults)} faults\n{told}\n    again: {again}\n")
    if sitting.evidence is not None:
        folder = sitting.evidence / f"{name}-{done.seed}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "jobs.txt").write_text("\n".join([*map(str, done.verdict.faults), "", *done.evidence]))
        for place in ground.places:
            shutil.copy(place.log, folder)


def try_points(points: Iterable[Point], sitting: Sitting, processes: int) -> Iterator[Line]:
    """Line by line, as they are done."""
    if processes == 1:
        with closing(Fleets(sitting)) as fleets:
            yield from (try_point(point, sitting, fleets) for point in points)
        return
    with ProcessPoolExecutor(processes) as pool:
        yield from pool.map(partial(try_point, sitting=sitting), points)


def _write(folder: Path, lines: Sequence[Line], sitting: Sitting) -> None:
    """What is known so far: hours of it should not be lost with whatever ends the rest."""
    folder.mkdir(parents=True, exist_ok=True)
    result = {
        "date": today(),
        "commit": commit(),
        "machine": machine(),
        "model": REAL if sitting.real else FAKE,
        "seeds": [sitting.seeds.start, sitting.seeds.stop],
        "points": [asdict(line) for line in lines],
    }
    file = folder / f"chaos-{'real' if sitting.real else 'fake'}.json"
    file.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5, help="rounds of each point (default 5)")
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--points", default="", help="names, separated by commas (default: all)")
    parser.add_argument("--real", action="store_true", help="the real model instead of the fake engine")
    parser.add_argument("--jobs", type=int, default=1, help="points tried at the same time")
    parser.add_argument("--work", type=int, default=orders.JOBS, help="jobs of a wave")
    parser.add_argument("--output", type=Path, help="folder for the results as JSON")
    parser.add_argument("--verbose", action="store_true", help="a line for each round")
    parser.add_argument("--evidence", type=Path, help="folder for journals and logs of rounds that went wrong")
    parser.add_argument("--list", action="store_true", help="the points and what they try")
    given = parser.parse_args()
    if given.list:
        sys.stdout.writelines(f"{point.name:16} {point.who:12} rule {point.rules}\n" for point in POINTS)
        return 0
    wanted = given.points.split(",") if given.points else [point.name for point in POINTS]
    chosen = [point for point in POINTS if point.name in wanted]
    if unknown := set(wanted) - {point.name for point in chosen}:
        parser.error(f"there is no point {', '.join(sorted(unknown))}; see --list")
    seeds = range(given.first_seed, given.first_seed + given.seeds)
    sitting = Sitting(seeds, given.real, given.work, given.verbose, given.evidence)
    lines = []
    began = time.monotonic()
    for line in try_points(chosen, sitting, given.jobs):
        lines.append(line)
        sys.stdout.write(f"{line.text()}{'' if line.good else '  <--'}\n")
        sys.stdout.flush()
        if given.output:
            _write(given.output, lines, sitting)
    sys.stdout.write(f"{sum(line.rounds for line in lines)} rounds in {time.monotonic() - began:.0f} s\n")
    return 0 if all(line.good for line in lines) else 1


if __name__ == "__main__":
    sys.exit(main())
