"""Every kind of trouble with Redis, with many seeds, by hand: `python -m tests.chaos.faults.run --seeds 20`.

One line a round on standard output; when all scenarios were played, their figures in `benchmarks/results/faults.json`.
Exit code 1 when a round had a fault; `--only tail-at-byte --seed 17 --seeds 1` plays that round again.
"""

import argparse
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks import results
from tests.chaos.faults.fleet import BY_DEFAULT, SHORT, FaultFleet, Times, running
from tests.chaos.faults.judging import Tally
from tests.chaos.faults.rounds import Round, play
from tests.chaos.faults.scenarios import KINDS

TIMES = {"default": BY_DEFAULT, "short": SHORT}
_SUMS = ("jobs", "tokens", "lost", "repeated", "different", "forgotten", "refused")


def rounds(names: Sequence[str], seeds: Sequence[int], times: Times, logs: Path | None = None) -> Iterator[Round]:
    """One fleet for all seeds of a scenario; a fault is the end of a fleet, whose logs then go to `logs`."""
    for name in names:
        left = list(seeds)
        while left:
            with (
                tempfile.TemporaryDirectory(prefix="hr-") as folder,
                running(Path(folder), times, fsync=KINDS[name].fsync) as fleet,
            ):
                for done in _on_one_fleet(fleet, name, left):
                    yield done
                    if logs is not None and not done.clean:
                        keep(fleet.folder, logs / f"{name}-{done.seed}")


def _on_one_fleet(fleet: FaultFleet, name: str, left: list[int]) -> Iterator[Round]:
    """Takes seeds from the front of `left`."""
    while left:
        seed = left.pop(0)
        try:
            done = play(fleet, name, seed)
        except AssertionError as error:
            done = Round(name, seed, 0.0, "not played", Tally(faults=[str(error)]))
        yield done
        if not done.clean:
            return


def keep(folder: Path, to: Path) -> None:
    to.mkdir(parents=True, exist_ok=True)
    for log in (*folder.glob("*.log"), *folder.glob("r*/redis.log")):
        shutil.copy(log, to / log.name)


def summary(done: Sequence[Round]) -> list[dict[str, Any]]:
    """One row a scenario."""
    rows = []
    for name in dict.fromkeys(each.scenario for each in done):
        tallies = [each.tally for each in done if each.scenario == name]
        sums = {key: sum(getattr(tally, key) for tally in tallies) for key in _SUMS}
        rows.append(
            {
                "scenario": name,
                "rounds": len(tallies),
                **sums,
                "on_again_max_s": round(max(tally.on_s for tally in tallies), 2),
                "slowest_answer_s": round(max(tally.slowest_s for tally in tallies), 2),
                "rounds_with_faults": sum(bool(tally.faults) for tally in tallies),
            }
        )
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.faults.run", description=__doc__.split("\n", 1)[0])
    parser.add_argument("--seeds", type=int, default=5, help="how many (default 5)")
    parser.add_argument("--seed", type=int, default=0, help="the first (default 0)")
    parser.add_argument("--only", nargs="+", choices=KINDS, help="some of the scenarios")
    parser.add_argument(
        "--times", choices=TIMES, default="default", help="the protocol's own times, or a fifth of them"
    )
    parser.add_argument("--logs", type=Path, help="a folder for the logs of fleets that had a fault")
    parser.add_argument("--out", type=Path, help="where the figures go, also those of some scenarios")
    given = parser.parse_args()
    seeds = list(range(given.seed, given.seed + given.seeds))
    done: list[Round] = []
    for each in rounds(given.only or list(KINDS), seeds, TIMES[given.times], given.logs):
        done.append(each)
        sys.stdout.write(each.line() + "\n" + "".join(f"    {fault}\n" for fault in each.tally.faults[:20]))
        sys.stdout.flush()
    out = given.out or (None if given.only else results.FOLDER / "faults.json")
    if out is not None:
        flags = {"seeds": seeds, "times": given.times}
        results.write(out, {**results.header(Path("fake")), "flags": flags, "scenarios": summary(done)})
    return 0 if all(each.clean for each in done) else 1


if __name__ == "__main__":
    sys.exit(main())
