"""Our engine against every CPU peer: same weights, same prompts, same lengths, same threads, taken in turns.

    python -m benchmarks.cpu [--peers openvino,llama.cpp] [--workloads n1,n8] [--rounds 3] [--threads 2]

Installs the peers on first use, each into an environment of its own in benchmarks/.peers (8 GB in all, 6 of them stay).
Every engine runs in a process that stays loaded and is put to sleep while another one is measured. Within a round each
run of a peer has a run of ours beside it, with the same requests; the ratio is taken there, and the median over the
rounds. `--numerics` measures exact against reference numerics instead. A peer that fails is reported in its own words.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from benchmarks import results
from benchmarks.arguments import common, names
from benchmarks.comparison import Sample, pair_order, summaries
from benchmarks.machine import commit, today
from benchmarks.peers.headrace import OURS
from benchmarks.peers.peer import PEERS, Peer, find, interpreter, started
from benchmarks.peers.process import PeerError, RunnerProcess
from benchmarks.results import model_path, say
from benchmarks.table import comparison_table
from benchmarks.workloads import WORKLOADS, Ask, Workload, warm_up

NUMERICS_PEER: Final = "reference"
NUMERICS_WORKLOADS: Final = ("n1", "n8", "n32")
DEFAULT_PEERS: Final = tuple(name for name in PEERS if name != NUMERICS_PEER)


@dataclass(frozen=True, slots=True)
class Settings:
    model: Path
    workloads: tuple[Workload, ...]
    rounds: int
    threads: int
    run_timeout_s: float


class Opponent:
    """One peer, its process while it lives, and what was seen of it."""

    def __init__(self, peer: Peer, settings: Settings) -> None:
        self.peer = peer
        self.samples: list[Sample] = []
        self.failures: dict[str, str] = {}
        self.error = ""
        self._settings = settings
        self._process: RunnerProcess | None = None
        self._warm: set[str] = set()
        self._facts: dict[str, Any] = {}

    def start(self) -> None:
        """Install it, make its files, load it. Raises PeerError."""
        say(f"{self.peer.name}: starting")
        model = self.peer.files(self._settings.model, say)
        python = interpreter(self.peer, Path(sys.executable), say)
        self._process = started(self.peer, python, model, self._settings.threads)
        self._warm.clear()
        self._facts = {
            "start_s": round(self._process.start_s, 1),
            "load_s": round(self._process.load_s, 1),
            **self._process.about,
        }
        say(f"{self.peer.name}: ready after {self._process.start_s:.1f} s")

    def run(self, workload: Workload, asks: tuple[Ask, ...]) -> float:
        """Output tokens per second; a first, shorter run of the same number of requests is not counted.

        Raises PeerError. An engine that died is started again by the next run.
        """
        if self._process is None or not self._process.alive:
            self.start()
        assert self._process is not None
        if workload.name not in self._warm:
            self._process.run(warm_up(workload), self._settings.run_timeout_s)
            self._warm.add(workload.name)
        return self._process.run(asks, self._settings.run_timeout_s).tokens_per_second

    def stop(self) -> None:
        if self._process is not None:
            self._process.stop()

    def record(self) -> dict[str, Any]:
        """For the results file."""
        stamp = {"commit": commit(), "date": today()}
        found: dict[str, Any] = {
            "title": self.peer.title,
            **self._facts,
            "workloads": {name: {**said, **stamp} for name, said in summaries(self.samples).items()},
            "failures": self.failures,
        }
        return {**found, "error": self.error} if self.error else found


def measure(ours: Opponent, peers: Sequence[Opponent], settings: Settings) -> None:
    """All rounds. A workload that failed once is not tried again; a peer that did not start is left out."""
    for opponent in peers:
        try:
            opponent.start()
        except PeerError as error:
            opponent.error = str(error)
            say(f"{opponent.peer.name}: {error}")
    by_name = {opponent.peer.name: opponent for opponent in peers if not opponent.error}
    for round_number in range(settings.rounds):
        for workload in settings.workloads:
            for name in pair_order(round_number, list(by_name)):
                opponent = by_name[name]
                if opponent.peer.runs(workload.name) and workload.name not in opponent.failures:
                    _pair(ours, opponent, workload, round_number)


def _pair(ours: Opponent, opponent: Opponent, workload: Workload, round_number: int) -> None:
    """Both with the same requests, right after one another; who comes first changes with every round."""
    asks = workload.draw(f"{opponent.peer.name}/{round_number}")
    speeds = {}
    for one in (ours, opponent) if round_number % 2 == 0 else (opponent, ours):
        try:
            speeds[one.peer.name] = one.run(workload, asks)
        except PeerError as error:
            if one is ours:
                raise
            opponent.failures[workload.name] = str(error)
            say(f"{opponent.peer.name} {workload.name}: {error}")
            return
    sample = Sample(opponent.peer.name, workload.name, speeds[ours.peer.name], speeds[opponent.peer.name])
    opponent.samples.append(sample)
    speeds_said = f"{sample.theirs:8.1f} tok/s, ours {sample.ours:8.1f}"
    say(f"round {round_number + 1} {workload.name:7} {sample.peer:24} {speeds_said}, {sample.ratio:6.2f}x")


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 1 when a peer failed."""
    given = _parser().parse_args(arguments)
    against = [NUMERICS_PEER] if given.numerics else given.peers
    workloads = NUMERICS_WORKLOADS if given.numerics and given.workloads is None else given.workloads or WORKLOADS
    settings = Settings(
        model_path(given.model),
        tuple(WORKLOADS[name] for name in workloads),
        given.rounds,
        given.threads,
        given.timeout,
    )
    output = given.output or results.FOLDER / ("numerics.json" if given.numerics else "cpu.json")
    ours, peers = Opponent(OURS, settings), [Opponent(find(name), settings) for name in against]
    with ExitStack() as stack:
        for opponent in (ours, *peers):
            stack.callback(opponent.stop)
        ours.start()
        measure(ours, peers, settings)
    flags = {"threads": settings.threads, "rounds": settings.rounds, "greedy": True, "ignore_eos": True}
    records: Mapping[str, Any] = {opponent.peer.name: opponent.record() for opponent in peers}
    results.write_comparison(output, settings.model, flags, ours.record(), records)
    say(f"written to {output}")
    print(comparison_table(results.read(output)))
    return int(any(opponent.error or opponent.failures for opponent in peers))


def _parser() -> argparse.ArgumentParser:
    parser = common("benchmarks.cpu", __doc__, rounds=3, output=None)
    parser.add_argument("--peers", type=names(PEERS), default=list(DEFAULT_PEERS), help=", ".join(PEERS))
    parser.add_argument("--workloads", type=names(WORKLOADS), help=", ".join(WORKLOADS))
    parser.add_argument("--timeout", type=float, default=600.0, help="seconds for one run of one workload")
    parser.add_argument("--numerics", action="store_true", help="exact against reference numerics")
    return parser


if __name__ == "__main__":
    sys.exit(main())
