"""How long a client waits for its 202, at a steady rate of submissions, and what one costs the gateway.

    python -m benchmarks.submit [--rate 300] [--seconds 20] [--rounds 3] [--fsync everysec always] [--model FILE]

One gateway process and one Redis; clients in a process of their own, which post whatever the answers do. Four times:
beside a worker whose fake engine keeps up with the jobs at an engine's pace, and whose tokens are bytes, twice: as
urgent as the gateway, and giving way to it (`worker.nice`); with the same tokenizer and nobody who takes the jobs, so
that a backlog grows; and so with the tokenizer of a real model. In turns, once a round. `stolen` is the part of the
machine's CPU time that other machines of its host had meanwhile.
"""

import os
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Final

import orjson
import psutil
import redis

from benchmarks import results
from benchmarks.arguments import common
from benchmarks.figures import Figure
from benchmarks.results import model_path, say
from benchmarks.serving.beside import beside
from benchmarks.serving.poster import Poster
from benchmarks.serving.readers import post
from benchmarks.serving.record import record
from benchmarks.serving.stand import MODEL, Cost, Stand, announce, announce_file, standing, working
from headrace.store.cards import read_releases

WARM_S: Final = 2.0
BAR: Final = "p50 ≤ 5 ms, p99 ≤ 25 ms with everysec"
WORKED: Final = "fake engine"
NICE: Final = "fake engine, worker.nice 15"
WAITING: Final = "no worker"
TOKENIZED: Final = "no worker, a real model's tokenizer"
SETTINGS: Final = (WORKED, NICE, WAITING, TOKENIZED)
ENGINE: Final = "fake:speed=100,kv_tokens=131072"
ROOM: Final = {"HEADRACE_WORKER__MAX_JOBS": "128"}
"""16 tokens at a hundred steps a second are 48 jobs at a time."""
GIVING_WAY: Final = {"HEADRACE_WORKER__NICE": "15"}
_MAX_TOKENS: Final = 16
_WORDS: Final = (
    "Summarise the following note in one sentence: the mill by the river was built in the year of the great flood, "
    "burned down twice, and has been grinding corn ever since, first with stones and later with steel rollers, for "
    "farmers of the valley who came with carts, then with lorries, and who still pay a tenth of their grain."
)


@dataclass(frozen=True, slots=True)
class Found:
    """Milliseconds from the moment a request was due to its answer; CPU of the gateway in ms for one request."""

    requests: int
    refused: int
    p50_ms: float
    p99_ms: float
    worst_ms: float
    gateway_ms_per_request: float
    cores: dict[str, float]
    stolen: float


def ask(pipe: Connection, port: int, model: str, rate: float, seconds: float) -> None:
    """The clients' process."""
    poster = Poster(port)
    body = {"model": model, "max_tokens": _MAX_TOKENS}

    def request(number: int) -> bytes:
        messages = [{"role": "user", "content": f"{number} {_WORDS}"}]
        return post("/v1/jobs", orjson.dumps({**body, "messages": messages}))

    poster.post(request, rate, WARM_S)
    poster.answers.clear()
    pipe.send(None)
    poster.post(request, rate, seconds)
    pipe.send([(answer.seconds, answer.status) for answer in poster.answers])
    pipe.recv()


def measure(stand: Stand, model: str, rate: float, seconds: float) -> Found:
    with beside(ask, stand.port, model, rate, seconds) as clients:
        clients.hear()
        say(f"{rate:g} requests/s to process {stand.gateway.pid}")
        processes = {"gateway": stand.gateway, "redis": stand.redis, "clients": clients.process}
        began, before = time.monotonic(), {name: Cost.of(process) for name, process in processes.items()}
        kept_before = psutil.cpu_times().steal
        answers = clients.hear()
        after, took = {name: Cost.of(process) for name, process in processes.items()}, time.monotonic() - began
        kept = psutil.cpu_times().steal - kept_before
        clients.tell()
    waits = sorted(waited * 1000 for waited, _ in answers)
    used = {name: after[name].cpu_s - before[name].cpu_s for name in processes}
    return Found(
        requests=len(answers),
        refused=sum(status != 202 for _, status in answers),
        p50_ms=round(statistics.median(waits), 2),
        p99_ms=round(waits[len(waits) * 99 // 100], 2),
        worst_ms=round(waits[-1], 2),
        gateway_ms_per_request=round(used["gateway"] / len(answers) * 1000, 3),
        cores={name: round(cpu_s / took, 3) for name, cpu_s in used.items()},
        stolen=round(kept / took / (os.cpu_count() or 1), 3),
    )


def main(arguments: Sequence[str] | None = None) -> int:
    parser = common("benchmarks.submit", __doc__, rounds=3, output=results.FOLDER / "submit.json")
    parser.add_argument("--rate", type=float, default=300.0, help="requests a second")
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--fsync", nargs="+", choices=("everysec", "always"), default=["everysec", "always"])
    given = parser.parse_args(arguments)
    model = model_path(given.model)
    cases = [(fsync, setting) for fsync in given.fsync for setting in SETTINGS]
    runs: dict[tuple[str, str], list[Found]] = {case: [] for case in cases}
    for _ in range(given.rounds):
        for fsync, setting in cases:
            with standing(fsync) as stand, _setting(stand, setting, model) as name:
                found = measure(stand, name, given.rate, given.seconds)
            say(f"{fsync}, {setting}: {found}")
            runs[fsync, setting].append(found)
    record(
        given.output,
        model.name,
        {"rate": given.rate, "seconds": given.seconds, "rounds": given.rounds, "engine": ENGINE, **ROOM},
        [
            {"fsync": fsync, "setting": setting, "found": asdict(found)}
            for (fsync, setting), all_found in runs.items()
            for found in all_found
        ],
        [
            figure
            for (fsync, setting), all_found in runs.items()
            for figure in _told(f"appendfsync {fsync}, {setting}, {given.rate:g} requests/s", all_found)
        ],
    )
    return 0


@contextmanager
def _setting(stand: Stand, setting: str, model: Path) -> Iterator[str]:
    """The model to ask for."""
    with redis.Redis.from_url(stand.redis_url) as client:
        if setting in (WORKED, NICE):
            with working(stand, ENGINE, ROOM | GIVING_WAY if setting == NICE else ROOM):
                (release,) = read_releases(client)
                yield release.card.id
            return
        announce(client) if setting == WAITING else announce_file(client, model)
        yield MODEL


def _told(what: str, all_found: Sequence[Found]) -> list[Figure]:
    """Medians of the rounds, and of each the best and the worst."""
    p50s, p99s = [found.p50_ms for found in all_found], [found.p99_ms for found in all_found]
    costs = [found.gateway_ms_per_request for found in all_found]
    refused = sum(found.refused for found in all_found)
    shown = f"p50 {_range(p50s)}, p99 {_range(p99s)}" + (f", {refused} refused" if refused else "")
    bar = BAR if what.startswith("appendfsync everysec") else ""
    return [
        Figure(f"{what}: from the request to the 202", shown, (*p50s, *p99s), bar),
        Figure(f"{what}: gateway CPU of a request", f"{statistics.median(costs):.2f} ms", tuple(costs)),
    ]


def _range(values: Sequence[float]) -> str:
    median = f"{statistics.median(values):.1f} ms"
    return median if len(values) == 1 else f"{median} ({min(values):.1f} to {max(values):.1f})"


if __name__ == "__main__":
    sys.exit(main())
