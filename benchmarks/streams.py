"""Many streams on one gateway: how late tokens come to their clients, and what an event and an open stream cost.

    python -m benchmarks.streams [--open 2000] [--busy 200] [--seconds 15] [--fsync everysec]

One gateway process, one Redis, a publisher that appends like a worker's emitter and clients that read raw sockets, each
in a process of its own on this machine. Delay is from the moment an append is handed to Redis to the moment its event
has been read from the client's socket, so it includes Redis. Streams that are not busy wait for their first token.

At 50 tokens/s a watched stream is appended to every 50 ms (rule 15), which is three tokens an event. Gathering one
makes every token an event of its own, which is more than any worker sends.
"""

import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from typing import Any, Final

import orjson
import redis

from benchmarks import results
from benchmarks.arguments import common, names
from benchmarks.figures import Figure
from benchmarks.results import say
from benchmarks.serving.beside import beside
from benchmarks.serving.publisher import SEQ_OF_FIRST_DELTA, Pace, claim_all, publish
from benchmarks.serving.readers import Readers, get, post
from benchmarks.serving.record import record
from benchmarks.serving.stand import MODEL, Cost, Stand, announce, standing, submit
from headrace.store import keys

ROUTES: Final = ("events", "chat")
WARM_S: Final = 3.0
_TOKENS_PER_S: Final = 50
_DRAIN_S: Final = 2.0
_OPEN_S: Final = 120.0
_MOST_TOKENS: Final = 8_192
_FRAMES_BEFORE: Final = {"events": SEQ_OF_FIRST_DELTA - 1, "chat": 1}
"""How many a client is sent before its first token: `accepted` and `started`, or the chunk that gives the role."""


@dataclass(frozen=True, slots=True)
class Load:
    """How many streams are open, how many of them get tokens, for how long, and which route they follow."""

    route: str
    opened: int
    busy: int
    seconds: float
    gather: int


@dataclass(frozen=True, slots=True)
class Found:
    """One run: delays in milliseconds, CPU of the gateway in ms for 1,000 events, cores in use of every process."""

    events_per_s: float
    tokens_per_s: float
    missing: int
    p50_ms: float
    p99_ms: float
    worst_ms: float
    gateway_ms_per_1000_events: float
    cores: dict[str, float]
    stream_kb: float


def follow(pipe: Connection, port: int, requests: Sequence[bytes], heads: bool) -> None:
    """The clients' process: open all, say so, read until told to stop, tell what came when on which stream."""
    readers = Readers(port)
    readers.open(requests)
    if heads:
        give_up_at = time.monotonic() + _OPEN_S
        readers.hear_until(lambda: all(stream.head for stream in readers.streams) or time.monotonic() > give_up_at)
    pipe.send(readers.refusals())
    readers.hear_until(pipe.poll)
    pipe.recv()
    pipe.send([(stream.job_id, stream.came) for stream in readers.streams])
    readers.close()


def append(pipe: Connection, url: str, count: int, pace: Pace, seconds: float) -> None:
    """The worker's process: claim, then publish, then tell what was sent when."""
    with redis.Redis.from_url(url) as client:
        jobs = claim_all(client, MODEL, count)
    pipe.send(None)
    pipe.send(publish(url, jobs, pace, seconds))


def chat_body() -> bytes:
    message = {"role": "user", "content": "hi"}
    return orjson.dumps({"model": MODEL, "messages": [message], "max_tokens": _MOST_TOKENS, "stream": True})


def measure(stand: Stand, load: Load) -> Found:
    with redis.Redis.from_url(stand.redis_url) as client:
        client.flushall()
        announce(client)
        ids = submit(client, load.opened, max_tokens=_MOST_TOKENS) if load.route == "events" else []
        requests = [get(f"/v1/jobs/{job_id}/events") for job_id in ids]
        requests = requests or [post("/v1/chat/completions", chat_body())] * load.opened
        _warm(stand)
        before = Cost.of(stand.gateway).memory
        with beside(follow, stand.port, requests, bool(ids)) as clients:
            if refusals := clients.hear():
                raise RuntimeError(f"the gateway refused {len(refusals)} of {load.opened} streams: {refusals[0]!r}")
            _await_all(client, load.opened)
            say(f"{load.opened} streams are open on process {stand.gateway.pid}")
            stream_kb = (Cost.of(stand.gateway).memory - before) / load.opened / 1000
            pace = Pace(1 / _TOKENS_PER_S, load.gather)
            seconds = WARM_S + load.seconds + 1
            with beside(append, stand.redis_url, load.busy, pace, seconds) as worker:
                worker.hear()
                processes = {"gateway": stand.gateway, "redis": stand.redis}
                processes |= {"publisher": worker.process, "clients": clients.process}
                window, cores = _cores(processes, load.seconds)
                sent = worker.hear()
            time.sleep(_DRAIN_S)
            clients.tell()
            came = clients.hear()
    arrived = {job_id or ids[number]: times for number, (job_id, times) in enumerate(came) if job_id or ids}
    return _found(load, sent, arrived, window, cores, stream_kb)


def _warm(stand: Stand) -> None:
    """What a gateway loads with its first request is not a stream's memory."""
    readers = Readers(stand.port)
    readers.open([get("/v1/models"), get("/health/ready")])
    readers.hear(0.5)
    readers.close()


def _await_all(client: redis.Redis, streams: int) -> None:
    """Until the gateway listens to all of them. Raises TimeoutError."""
    give_up_at = time.monotonic() + _OPEN_S
    while (heard := len(client.pubsub_channels(keys.live("*")))) < streams:
        if time.monotonic() > give_up_at:
            raise TimeoutError(f"the gateway follows {heard} of {streams} streams after {_OPEN_S:g} s")
        time.sleep(0.1)


def _cores(processes: dict[str, Any], seconds: float) -> tuple[tuple[float, float], dict[str, float]]:
    """The measured time, after a while to get going, and how many cores each process had in it."""
    time.sleep(WARM_S)
    began = time.monotonic()
    before = {name: Cost.of(process) for name, process in processes.items()}
    time.sleep(seconds)
    after = {name: Cost.of(process) for name, process in processes.items()}
    ended = time.monotonic()
    return (began, ended), {name: (after[name].cpu_s - before[name].cpu_s) / (ended - began) for name in processes}


def _found(
    load: Load,
    sent: dict[str, list[float]],
    arrived: dict[str, list[float]],
    window: tuple[float, float],
    cores: dict[str, float],
    stream_kb: float,
) -> Found:
    """Of the events that were handed to Redis within `window`."""
    began, ended = window
    skipped = _FRAMES_BEFORE[load.route]
    delays, missing = [], 0
    for job_id, times in sent.items():
        came = arrived.get(job_id, [])
        for number, at in enumerate(times):
            if began <= at < ended:
                if number + skipped < len(came):
                    delays.append(came[number + skipped] - at)
                else:
                    missing += 1
    delays.sort()
    rate = (len(delays) + missing) / (ended - began)
    return Found(
        events_per_s=round(rate),
        tokens_per_s=round(rate * load.gather),
        missing=missing,
        p50_ms=round(statistics.median(delays) * 1000, 2),
        p99_ms=round(delays[len(delays) * 99 // 100] * 1000, 2),
        worst_ms=round(delays[-1] * 1000, 2),
        gateway_ms_per_1000_events=round(cores["gateway"] / rate * 1_000_000, 1),
        cores={name: round(used, 3) for name, used in cores.items()},
        stream_kb=round(stream_kb, 1),
    )


def main(arguments: Sequence[str] | None = None) -> int:
    parser = common("benchmarks.streams", __doc__, rounds=1, output=results.FOLDER / "streams.json")
    parser.add_argument("--open", type=int, default=2_000, help="streams that are open")
    parser.add_argument("--busy", type=int, default=200, help="those of them that get 50 tokens a second")
    parser.add_argument("--seconds", type=float, default=15.0, help="that are measured")
    parser.add_argument("--gather", type=int, nargs="+", default=[3, 1], help="tokens of an event")
    parser.add_argument("--routes", type=names(ROUTES), default=list(ROUTES), help=", ".join(ROUTES))
    parser.add_argument("--fsync", choices=("everysec", "always", "no"), default="everysec")
    given = parser.parse_args(arguments)
    runs, figures = [], []
    for route in given.routes:
        for gather in given.gather:
            load = Load(route, given.open, given.busy, given.seconds, gather)
            with standing(given.fsync) as stand:
                found = measure(stand, load)
            runs.append({"load": asdict(load), "found": asdict(found)})
            figures += _told(load, found)
    record(given.output, "no model", {"fsync": given.fsync, "seconds": given.seconds}, runs, figures)
    return 0


def _told(load: Load, found: Found) -> list[Figure]:
    say(f"{load} {found}")
    what = f"{load.route}, {load.opened} open, {load.busy} at {_TOKENS_PER_S} tokens/s in events of {load.gather}"
    shown = f"p50 {found.p50_ms:.1f} ms, p99 {found.p99_ms:.1f} ms, {found.missing} missing"
    cost = f"{found.gateway_ms_per_1000_events:.0f} ms, {found.cores['gateway']:.2f} cores"
    return [
        Figure(f"{what}: token to client", shown, (found.p50_ms, found.p99_ms), "none missing"),
        Figure(f"{what}: gateway CPU of 1,000 events", cost, (found.gateway_ms_per_1000_events,)),
        Figure(f"{what}: memory of an open stream", f"{found.stream_kb:.0f} kB", (found.stream_kb,)),
    ]


if __name__ == "__main__":
    sys.exit(main())
