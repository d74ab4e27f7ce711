"""How long a client waits for its 202, at a steady rate of submissions, and what one costs the gateway.

    python -m benchmarks.submit [--rate 300] [--seconds 20] [--fsync everysec always] [--model FILE]

One gateway process and one Redis with a fake worker that takes the jobs, or without one; clients in a process of their
own, which post whatever the answers do. Twice: with a tokenizer of bytes, whose work is next to nothing, and with that
of a real model.
"""

import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from typing import Final

import orjson
import redis

from benchmarks import results
from benchmarks.arguments import common
from benchmarks.figures import Figure
from benchmarks.results import model_path, say
from benchmarks.serving.beside import beside
from benchmarks.serving.poster import Poster
from benchmarks.serving.readers import post
from benchmarks.serving.record import record
from benchmarks.serving.stand import MODEL, Cost, Stand, announce, announce_file, standing

WARM_S: Final = 2.0
BAR: Final = "p50 ≤ 5 ms, p99 ≤ 25 ms with everysec"
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


def ask(pipe: Connection, port: int, rate: float, seconds: float) -> None:
    """The clients' process."""
    poster = Poster(port)
    body = {"model": MODEL, "max_tokens": _MAX_TOKENS}

    def request(number: int) -> bytes:
        messages = [{"role": "user", "content": f"{number} {_WORDS}"}]
        return post("/v1/jobs", orjson.dumps({**body, "messages": messages}))

    poster.post(request, rate, WARM_S)
    poster.answers.clear()
    pipe.send(None)
    poster.post(request, rate, seconds)
    pipe.send([(answer.seconds, answer.status) for answer in poster.answers])
    pipe.recv()


def measure(stand: Stand, rate: float, seconds: float) -> Found:
    with beside(ask, stand.port, rate, seconds) as clients:
        clients.hear()
        say(f"{rate:g} requests/s to process {stand.gateway.pid}")
        processes = {"gateway": stand.gateway, "redis": stand.redis, "clients": clients.process}
        began, before = time.monotonic(), {name: Cost.of(process) for name, process in processes.items()}
        answers = clients.hear()
        after, took = {name: Cost.of(process) for name, process in processes.items()}, time.monotonic() - began
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
    )


def main(arguments: Sequence[str] | None = None) -> int:
    parser = common("benchmarks.submit", __doc__, rounds=1, output=results.FOLDER / "submit.json")
    parser.add_argument("--rate", type=float, default=300.0, help="requests a second")
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--fsync", nargs="+", choices=("everysec", "always"), default=["everysec", "always"])
    given = parser.parse_args(arguments)
    model = model_path(given.model)
    runs, figures = [], []
    for fsync in given.fsync:
        for tokenizer in ("bytes", model.name):
            with standing(fsync) as stand, redis.Redis.from_url(stand.redis_url) as client:
                announce(client) if tokenizer == "bytes" else announce_file(client, model)
                found = measure(stand, given.rate, given.seconds)
            runs.append({"fsync": fsync, "tokenizer": tokenizer, "found": asdict(found)})
            figures += _told(fsync, tokenizer, given.rate, found)
    record(given.output, model.name, {"rate": given.rate, "seconds": given.seconds}, runs, figures)
    return 0


def _told(fsync: str, tokenizer: str, rate: float, found: Found) -> list[Figure]:
    say(f"{fsync} {tokenizer} {found}")
    what = f"appendfsync {fsync}, tokenizer {tokenizer}, {rate:g} requests/s"
    shown = f"p50 {found.p50_ms:.1f} ms, p99 {found.p99_ms:.1f} ms"
    shown += f", {found.refused} refused" if found.refused else ""
    cost = f"{found.gateway_ms_per_request:.2f} ms, {found.cores['gateway']:.2f} cores"
    return [
        Figure(f"{what}: from the request to the 202", shown, (found.p50_ms, found.p99_ms), BAR),
        Figure(f"{what}: gateway CPU of a request", cost, (found.gateway_ms_per_request,)),
    ]


if __name__ == "__main__":
    sys.exit(main())
