"""From the start of a process to its first token, from the GGUF: ours with nothing prepared and warm, and the peers.

    python -m benchmarks.startup [--peers openvino,llama.cpp] [--rounds 5] [--threads 2]

The model file is in the machine's file cache. "The very first time" gives our engine empty folders for its compiled
code and its prepared weights; the peers keep nothing between starts by default.
"""

import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from benchmarks import results
from benchmarks.arguments import common, names
from benchmarks.figures import Figure, seconds
from benchmarks.peers.headrace import OURS
from benchmarks.peers.peer import PEERS, Peer, find, interpreter, started
from benchmarks.peers.process import PeerError
from benchmarks.results import model_path, say
from benchmarks.table import figures_table
from benchmarks.workloads import Ask

PROMPT: Final = Ask(tuple(range(1_000, 1_032)), 1)
BARS: Final[Mapping[str, str]] = {"first": "≤ 20 s", "warm": "≤ 3 s"}
_RUN_S: Final = 300.0


def first_token_s(peer: Peer, python: Path, model: Path, threads: int) -> float:
    """Raises PeerError."""
    began = time.perf_counter()
    process = started(peer, python, model, threads)
    try:
        process.run((PROMPT,), _RUN_S)
        return time.perf_counter() - began
    finally:
        process.stop()


def with_caches_in(peer: Peer, folder: Path) -> Peer:
    """Ours, with its compiled code and prepared weights kept there and nowhere else."""
    return replace(peer, options={**peer.options, "cache_dir": str(folder)})


def ours(model: Path, rounds: int, threads: int) -> list[Figure]:
    """The very first start and the ones after it, each round from empty folders."""
    python = Path(sys.executable)
    first, warm = [], []
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as folder:
            peer = with_caches_in(OURS, Path(folder))
            first.append(first_token_s(peer, python, model, threads))
            warm.append(first_token_s(peer, python, model, threads))
        say(f"headrace: the very first time {first[-1]:.2f} s, warm {warm[-1]:.2f} s")
    return [
        seconds(f"{OURS.title}, the very first time", first, BARS["first"]),
        seconds(f"{OURS.title}, warm", warm, BARS["warm"]),
    ]


def theirs(name: str, model: Path, rounds: int, threads: int) -> Figure:
    peer = find(name)
    try:
        python, files = interpreter(peer, Path(sys.executable), say), peer.files(model, say)
        taken = []
        for _ in range(rounds):
            taken.append(first_token_s(peer, python, files, threads))
            say(f"{name}: {taken[-1]:.2f} s")
    except PeerError as error:
        say(f"{name}: {error}")
        return Figure(peer.title, f"failed: {str(error).splitlines()[0]}", ())
    return seconds(peer.title, taken)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = common("benchmarks.startup", __doc__, rounds=5, output=results.FOLDER / "startup.json")
    parser.add_argument("--peers", type=names(PEERS), default=["openvino", "llama.cpp"], help=", ".join(PEERS))
    given = parser.parse_args(arguments)
    model = model_path(given.model)
    model.read_bytes()  # into the file cache
    figures = ours(model, given.rounds, given.threads)
    figures += [theirs(name, model, given.rounds, given.threads) for name in given.peers]
    flags = {"threads": given.threads, "rounds": given.rounds}
    result = results.write_figures(given.output, model, flags, figures)
    print(figures_table(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
