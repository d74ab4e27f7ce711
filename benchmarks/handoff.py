"""How long an accepted job waits for an idle worker's engine: from the client's 202 to the first word of the attempt.

    python -m benchmarks.handoff [--jobs 500] [--fsync everysec always]

One gateway, one Redis and one worker with the fake engine, which steps at once; jobs come one at a time, each after the
one before has ended and a random pause. The first word is the attempt's first append as a subscriber of Redis hears it,
so the figure holds the claim, the way into the engine's process, its first step, the way back and the append as well.
"""

import random
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any, Final

import httpx2
import orjson
import redis

from benchmarks import results
from benchmarks.arguments import common
from benchmarks.figures import Figure
from benchmarks.results import say
from benchmarks.serving.poster import Poster
from benchmarks.serving.readers import post
from benchmarks.serving.record import record
from benchmarks.serving.stand import Stand, standing, working

BAR: Final = "p99 ≤ 25 ms"
_PAUSE_S: Final = (0.02, 0.12)
_PATIENCE_S: Final = 30.0
_WARM: Final = 20


@dataclass(frozen=True, slots=True)
class Found:
    """Milliseconds: from the 202 to the first word (0 for one that came before it), and from the request to it."""

    jobs: int
    p50_ms: float
    p99_ms: float
    worst_ms: float
    request_p50_ms: float
    request_p99_ms: float


class Ear:
    """Hears every live event, however the gateway does."""

    def __init__(self, client: redis.Redis) -> None:
        self._subscription = client.pubsub(ignore_subscribe_messages=True)  # type: ignore[no-untyped-call]
        self._subscription.psubscribe("hr:live:*")
        self._subscription.get_message(timeout=_PATIENCE_S)

    def hear(self, job_id: str) -> tuple[float, float]:
        """When the attempt said its first word, and when the job ended. Raises TimeoutError."""
        first = 0.0
        while True:
            message: Any = self._subscription.get_message(timeout=_PATIENCE_S)
            now = time.monotonic()
            if message is None:
                raise TimeoutError(f"{job_id} has not ended after {_PATIENCE_S:g} s")
            event = orjson.loads(message["data"])
            if not message["channel"].endswith(job_id.encode()) or event["type"] == "accepted":
                continue
            first = first or now
            if event["type"] in ("completed", "failed", "cancelled", "expired"):
                return first, now

    def close(self) -> None:
        self._subscription.close()


def measure(stand: Stand, model: str, jobs: int) -> Found:
    body = orjson.dumps({"model": model, "prompt": "an idle fleet", "max_tokens": 1})
    waits, whole = [], []
    poster = Poster(stand.port)
    with _hearing(stand.redis_url) as ear:
        for number in range(jobs + _WARM):
            time.sleep(random.uniform(*_PAUSE_S))
            poster.answers.clear()
            poster.post(lambda _: post("/v1/jobs", body), 1_000.0, 0.001)
            (answer,) = poster.answers
            if answer.status != 202:
                raise RuntimeError(f"the gateway answered {answer.status}: {answer.body!r}")
            first, _ = ear.hear(orjson.loads(answer.body)["id"])
            if number >= _WARM:
                waits.append(max(0.0, first - answer.came) * 1000)
                whole.append((first - answer.due) * 1000)
    poster.close()
    waits.sort()
    whole.sort()
    return Found(
        jobs=jobs,
        p50_ms=round(statistics.median(waits), 2),
        p99_ms=round(waits[jobs * 99 // 100], 2),
        worst_ms=round(waits[-1], 2),
        request_p50_ms=round(statistics.median(whole), 2),
        request_p99_ms=round(whole[jobs * 99 // 100], 2),
    )


@contextmanager
def _hearing(url: str) -> Iterator[Ear]:
    with redis.Redis.from_url(url) as client:
        ear = Ear(client)
        try:
            yield ear
        finally:
            ear.close()


def main(arguments: Sequence[str] | None = None) -> int:
    parser = common("benchmarks.handoff", __doc__, rounds=1, output=results.FOLDER / "handoff.json")
    parser.add_argument("--jobs", type=int, default=500)
    parser.add_argument("--fsync", nargs="+", choices=("everysec", "always"), default=["everysec", "always"])
    given = parser.parse_args(arguments)
    runs, figures = [], []
    for fsync in given.fsync:
        with standing(fsync) as stand, working(stand, "fake:"):
            (model,) = (card["id"] for card in httpx2.get(f"{stand.url}/v1/models").json()["data"])
            found = measure(stand, model, given.jobs)
        say(f"{fsync} {found}")
        runs.append({"fsync": fsync, "found": asdict(found)})
        shown = f"p50 {found.p50_ms:.1f} ms, p99 {found.p99_ms:.1f} ms"
        name = f"appendfsync {fsync}, idle fleet: from the 202 to the engine's first word"
        figures.append(Figure(name, shown, (found.p50_ms, found.p99_ms), BAR))
    record(given.output, "no model", {"jobs": given.jobs}, runs, figures)
    return 0


if __name__ == "__main__":
    sys.exit(main())
