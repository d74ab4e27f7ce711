"""What the prefix cache is worth: time until the last of all first tokens, with many requests that begin alike.

    python -m benchmarks.shared_prefix [--requests 32] [--shared 512] [--own 32] [--rounds 3] [--threads 2]

Two engines with the same settings but `prefix_cache`, in turns. Every round has a prefix of its own, so the cache has
to earn what it gives within the round: all requests arrive at once, and nothing of them is known yet.
"""

import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from benchmarks import results
from benchmarks.arguments import common
from benchmarks.figures import seconds, times
from benchmarks.peers.headrace import CACHE_OFF, CACHE_ON
from benchmarks.peers.peer import started
from benchmarks.peers.process import RunnerProcess
from benchmarks.results import model_path, say
from benchmarks.table import figures_table
from benchmarks.workloads import Workload, shared_prefix, warm_up

BAR: Final = "≥ 3x"
_NEW_TOKENS: Final = 4
_RUN_S: Final = 600.0


def measure(engines: Mapping[str, RunnerProcess], workload: Workload, rounds: int) -> dict[str, list[float]]:
    """Seconds of every round, by engine. Who comes first changes with every round."""
    for engine in engines.values():
        engine.run(warm_up(workload), _RUN_S)
    found: dict[str, list[float]] = {name: [] for name in engines}
    for number in range(rounds):
        asks = workload.draw(f"round {number}")
        for name in sorted(engines, reverse=bool(number % 2)):
            found[name].append(engines[name].run(asks, _RUN_S).seconds)
            say(f"round {number + 1} {name:16} {found[name][-1]:8.3f} s")
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    parser = common("benchmarks.shared_prefix", __doc__, rounds=3, output=results.FOLDER / "shared_prefix.json")
    parser.add_argument("--requests", type=int, default=32)
    parser.add_argument("--shared", type=int, default=512)
    parser.add_argument("--own", type=int, default=32)
    given = parser.parse_args(arguments)
    model = model_path(given.model)
    workload = shared_prefix("shared-prefix", given.requests, given.shared, given.own, _NEW_TOKENS)
    with ExitStack() as stack:
        engines = {
            peer.name: stack.enter_context(started(peer, Path(sys.executable), model, given.threads))
            for peer in (CACHE_ON, CACHE_OFF)
        }
        found = measure(engines, workload, given.rounds)
    on, off = found[CACHE_ON.name], found[CACHE_OFF.name]
    what = f"{given.requests} requests, {given.shared} shared + {given.own} own tokens"
    figures = [
        seconds(f"{what}: {CACHE_ON.title}", on),
        seconds(f"{what}: {CACHE_OFF.title}", off),
        times("off / on", [without / cached for cached, without in zip(on, off, strict=True)], BAR),
    ]
    flags = {"threads": given.threads, "rounds": given.rounds}
    result = results.write_figures(given.output, model, flags, figures)
    print(figures_table(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
