"""How soon a cancelled job's KV pages are free: from the client's call to the engine's word that it holds them no more.

    python -m benchmarks.cancel [--times 100] [--streams 15] [--real]

One worker under `headrace up` decodes so many streams; beside them runs one job with a long prompt, which is cancelled
over HTTP. What the engine holds is told by its steps, passed on by the worker's beat, which comes every 50 ms here
instead of every second. The figure ends with the first beat in which the pages have fallen by 40, about as many as the
job holds by then and more than any stream has, so it is up to a beat too long and never too short.
"""

import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from benchmarks import results
from benchmarks.arguments import common
from benchmarks.figures import Figure, seconds, spread
from benchmarks.held_streams import LIMIT_S, Streams
from benchmarks.recovery import FAKE
from benchmarks.results import model_path, say
from benchmarks.table import figures_table
from headrace import Client
from headrace.store.beats import read_beats
from tests.e2e.fleet import Fleet, running

BEAT_MS: Final = 50
PAGES: Final = "headrace_engine_kv_pages_used"
STEPS: Final = "headrace_engine_step_seconds"
WORDS: Final = 1400
"""Of the prompt: with either tokenizer more than 80 pages of 16 tokens."""

FREED: Final = 40


class Worker:
    """What the one worker's last beat says."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet

    def pages(self) -> float:
        return float(self._metrics()["gauges"].get(PAGES, 0))

    def steps(self) -> tuple[int, float]:
        """How many there were, and their seconds."""
        seen = self._metrics()["histograms"][STEPS]
        return int(seen["count"]), float(seen["sum"])

    def _metrics(self) -> dict[str, Any]:
        (beat,) = read_beats(self._fleet.redis)
        return dict(beat.metrics)


def cancel_once(client: Client, fleet: Fleet, worker: Worker, number: int) -> float:
    """Seconds until the pages of one job are free."""
    prompt = f"{number} " + "mill " * WORDS  # no prefix that the cache may know
    job = client.submit(model=fleet.model, prompt=prompt, max_tokens=500, temperature=0, job_class="interactive")
    # Then its prompt is done and its pages are held. They are not counted: those of others come and go meanwhile.
    next(job.text_stream())
    time.sleep(2 * BEAT_MS / 1000)
    most, began = worker.pages(), time.monotonic()
    job.cancel()
    while (now := worker.pages()) > most - FREED:
        most = max(most, now)  # the others grow meanwhile
        if time.monotonic() - began > LIMIT_S:
            raise TimeoutError("the pages are not free")
        time.sleep(0.001)
    return time.monotonic() - began


def measure(
    source: str, times: int, streams: int, max_tokens: int, environ: dict[str, str]
) -> tuple[list[float], list[float]]:
    """Seconds of each cancel, and of a mean step meanwhile."""
    taken: list[float] = []
    steps: list[float] = []
    variables = environ | {"HEADRACE_QUEUE__BEAT_MS": str(BEAT_MS)}
    with (
        tempfile.TemporaryDirectory(prefix="hr-") as folder,
        running(Path(folder), model=source, workers=1, environ=variables) as fleet,
        Client(fleet.url) as client,
    ):
        worker = Worker(fleet)
        while len(taken) < times:
            with Streams(client, fleet.model, streams, max_tokens, f"cancel/{len(taken)}") as others:
                others.wait_for_tokens()
                while len(taken) < times and others.open() >= streams * 2 / 3:
                    count, sum_s = worker.steps()
                    taken.append(cancel_once(client, fleet, worker, len(taken)))
                    more, later_s = worker.steps()
                    steps += [(later_s - sum_s) / (more - count)] if more > count else []
            say(f"{len(taken)} cancels, the longest {max(taken) * 1000:.0f} ms")
    return taken, steps


def main(arguments: Sequence[str] | None = None) -> int:
    parser = common("benchmarks.cancel", __doc__, rounds=1, output=None)
    parser.add_argument("--times", type=int, default=100)
    parser.add_argument("--streams", type=int, default=15)
    parser.add_argument("--max-tokens", type=int, default=600)
    parser.add_argument("--real", action="store_true", help="the real model instead of the fake engine")
    parser.set_defaults(threads=1)
    given = parser.parse_args(arguments)
    path = model_path(given.model) if given.real else Path(FAKE)
    source = f"file:{path}" if given.real else f"{FAKE},kv_tokens=65536,context_length=16384"
    environ = {"HEADRACE_ENGINE__THREADS": str(given.threads)}
    taken, steps = measure(source, given.times, given.streams, given.max_tokens, environ)
    bar = "p99 ≤ one step + 0.2 s" if given.real else "p99 ≤ 0.2 s"
    figures: list[Figure] = [
        spread(f"cancel to free KV pages, {given.streams} streams beside it", taken, bar),
        seconds("a step meanwhile, mean of those of one cancel", steps),
    ]
    flags = {"threads": given.threads, "times": given.times, "streams": given.streams}
    output = given.output or results.FOLDER / ("cancel_real.json" if given.real else "cancel.json")
    print(figures_table(results.write_figures(output, path, flags, figures)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
