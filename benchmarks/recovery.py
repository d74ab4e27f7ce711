"""How long a stream stands still when its worker goes: from the kill to its next tokens, made by another worker.

    python -m benchmarks.recovery [--kinds child,parent,host,drain] [--kills 20] [--streams 16] [--real]

One worker holds every stream, a warm one beside it holds none. `child` and `parent` are SIGKILLs under `headrace up`;
`host` kills both processes of a worker that nobody supervises, so that only its leases tell; `drain` is SIGTERM. Each
stream of each kill gives one figure, read where a client reads it: at the gateway's server-sent events. Tokens that
were on their way when the worker went do not count, only those of the attempt that went on.

The fake engine makes 50 steps a second and its prompts cost nothing, so its figures are the fleet's own part; with
`--real` the idle worker also has to compute every prompt and every token that there was, with the cores it is given.
"""

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from benchmarks import results
from benchmarks.arguments import common, names
from benchmarks.figures import Figure, spread
from benchmarks.held_streams import Pair, running_pair
from benchmarks.results import model_path, say
from benchmarks.table import figures_table

FAKE: Final = "fake:speed=50"
KILLS_A_FLEET: Final = 4
"""A worker that dies again and again is started more slowly each time; a fleet of its own keeps that out of the way."""


def kill_child(pair: Pair) -> None:
    pair.child().kill()


def kill_parent(pair: Pair) -> None:
    pair.parent().kill()


def kill_host(pair: Pair) -> None:
    os.killpg(pair.parent().pid, signal.SIGKILL)


def drain(pair: Pair) -> None:
    pair.parent().terminate()


KINDS: Final[Mapping[str, Callable[[Pair], None]]] = {
    "child": kill_child,
    "parent": kill_parent,
    "host": kill_host,
    "drain": drain,
}
TITLES: Final = {
    "child": "engine killed",
    "parent": "worker killed",
    "host": "whole host gone, 10 s lease",
    "drain": "drain (SIGTERM)",
}
BARS: Final = {"child": "p99 ≤ 2 s", "parent": "p99 ≤ 2 s", "host": "p99 ≤ 12 s", "drain": "p99 ≤ 1 s"}


def recoveries(
    kind: str, kills: int, streams: int, max_tokens: int, model: str, environ: dict[str, str]
) -> list[float]:
    """Seconds, one for each stream of each kill."""
    seconds: list[float] = []
    for first in range(0, kills, KILLS_A_FLEET):
        with running_pair(model, environ, alone=kind == "host") as pair:
            pair.warm(streams)
            for number in range(first, min(kills, first + KILLS_A_FLEET)):
                taken = list(_one(pair, kind, streams, max_tokens, f"{kind}/{number}"))
                say(f"{kind} {number + 1}: {min(taken):.3f} to {max(taken):.3f} s")
                seconds += taken
                pair.whole()
    return seconds


def _one(pair: Pair, kind: str, count: int, max_tokens: int, name: str) -> Iterator[float]:
    with pair.streams_on_busy(count, max_tokens, name) as streams:
        began = time.monotonic()
        KINDS[kind](pair)
        for went_on_at in streams.wait_until_all_went_on():
            yield went_on_at - began


def main(arguments: Sequence[str] | None = None) -> int:
    parser = common("benchmarks.recovery", __doc__, rounds=1, output=None)
    parser.add_argument("--kinds", type=names(KINDS), default=list(KINDS), help=", ".join(KINDS))
    parser.add_argument("--kills", type=int, default=20, help="of each kind")
    parser.add_argument("--streams", type=int, default=16)
    parser.add_argument("--max-tokens", type=int, default=600)
    parser.add_argument("--real", action="store_true", help="the real model instead of the fake engine")
    parser.set_defaults(threads=1)  # two workers share two cores
    given = parser.parse_args(arguments)
    path = model_path(given.model) if given.real else Path(FAKE)
    model = f"file:{path}" if given.real else FAKE
    environ = {"HEADRACE_ENGINE__THREADS": str(given.threads)}
    figures: list[Figure] = []
    for kind in given.kinds:
        taken = recoveries(kind, given.kills, given.streams, given.max_tokens, model, environ)
        figures.append(spread(f"{TITLES[kind]}, {given.streams} streams, {given.kills} times", taken, BARS[kind]))
    flags = {"threads": given.threads, "kills": given.kills, "streams": given.streams}
    output = given.output or results.FOLDER / ("recovery_real.json" if given.real else "recovery.json")
    print(figures_table(results.write_figures(output, path, flags, figures)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
