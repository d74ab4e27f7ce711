"""How long the engine's steps take, alone and beside long prompts, and how fast it reads prompts. Knows no peers.

    python -m benchmarks.engine [--rounds 3] [--threads 2]

Seconds are the engine's own (`StepStats.seconds`). A step is cut so that it should stay under 0.1, which is
EngineConfig.step_seconds: whoever cancels or streams waits no longer than that. The skewed workload, 48 requests with
prompts of up to 800 tokens, is where that is hard.
"""

import statistics
import sys
from collections.abc import Sequence
from typing import Final

from benchmarks import results
from benchmarks.arguments import common
from benchmarks.figures import Figure, share
from benchmarks.results import model_path
from benchmarks.table import figures_table
from benchmarks.workloads import WORKLOADS, Ask, Workload, uniform
from engine import Engine, EngineConfig, SamplingParams
from engine.step_output import StepStats

ROWS: Final = (1, 8, 16, 32)
LONG_PROMPT: Final = 1000
_TARGET_S: Final = 0.1


def steps(engine: Engine, asks: Sequence[Ask]) -> list[StepStats]:
    """What every step of these requests was, all of them taken at once."""
    for number, ask in enumerate(asks):
        params = SamplingParams(max_tokens=ask.new_tokens, temperature=0, ignore_eos=True)
        engine.add_request(f"{number}", ask.prompt, params)
    found = []
    while engine.has_unfinished:
        found.append(engine.step().stats)
    return found


def decode_ms(engine: Engine, workload: Workload, seed: str) -> float:
    """The median of the steps in which all requests decode, and nothing else."""
    asks = workload.draw(seed)
    taken = [step.seconds for step in steps(engine, asks) if step.decode_rows == len(asks) and not step.prefill_tokens]
    return statistics.median(taken) * 1000


def prefill_tokens_per_second(engine: Engine, seed: str) -> float:
    asks = uniform("long", 1, LONG_PROMPT, 1).draw(seed)
    return LONG_PROMPT / sum(step.seconds for step in steps(engine, asks))


def milliseconds(name: str, values: Sequence[float], bar: str = "") -> Figure:
    return Figure(name, f"{statistics.median(values):.1f} ms", tuple(values), bar)


def measure(engine: Engine, rounds: int, seed: str) -> list[Figure]:
    decoding: dict[int, list[float]] = {rows: [] for rows in ROWS}
    reading, middle, longest, within = [], [], [], []
    for number in range(rounds):
        for rows in ROWS:
            decoding[rows].append(decode_ms(engine, uniform("rows", rows, 128, 64), f"{seed}/{number}"))
        reading.append(prefill_tokens_per_second(engine, f"{seed}/{number}"))
        taken = [step.seconds for step in steps(engine, WORKLOADS["skewed"].draw(f"{seed}/{number}"))]
        middle.append(statistics.median(taken) * 1000)
        longest.append(statistics.quantiles(taken, n=100)[-1] * 1000)
        within.append(sum(seconds <= _TARGET_S for seconds in taken) / len(taken))
    prefill = f"{statistics.median(reading):.0f} tokens/s"
    return [
        *(milliseconds(f"a step of {rows} rows that decode", values) for rows, values in decoding.items()),
        Figure(f"a prompt of {LONG_PROMPT} tokens is read at", prefill, tuple(reading)),
        milliseconds("steps of 48 skewed requests, median", middle),
        milliseconds("steps of 48 skewed requests, 99th percentile", longest, "about 100 ms"),
        share("steps of 48 skewed requests within 100 ms", within),
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = common("benchmarks.engine", __doc__, rounds=3, output=results.FOLDER / "engine.json")
    given = parser.parse_args(arguments)
    model = model_path(given.model)
    engine = Engine(EngineConfig(model=model, threads=given.threads))
    measure(engine, 1, "warm-up")  # so that the sizer knows this machine, and no large page is new
    flags = {"threads": given.threads, "rounds": given.rounds}
    result = results.write_figures(given.output, model, flags, measure(engine, given.rounds, "measured"))
    print(figures_table(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
