"""How long choosing tokens takes, for each kind of request and both samplers. Knows random logits, no model.

    python -m benchmarks.sampling [--rows 32] [--vocab 49152] [--threads 2] [--rounds 20] [--plain]

Rows are shaped like a language model's: most tokens far below a few likely ones. Samplers and kinds take turns, so that
a noisy minute hits all of them; a turn is a few steps of the same requests, the first of which is not counted, since
requests are met anew there. Prints the shortest and the median step as a table in Markdown. The floor is the time to
read the logits once, at the rate at which this machine sums them up in numpy.
"""

import argparse
import statistics
import time
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.compiled_sampler import CompiledSampler
from engine.request import Request, SamplingParams
from engine.sampler import PlainSampler, Sampler

KINDS: dict[str, dict[str, Any]] = {
    "greedy": {"temperature": 0.0},
    "greedy, penalties": {"temperature": 0.0, "frequency_penalty": 0.5, "repetition_penalty": 1.1},
    "greedy, 5 logprobs": {"temperature": 0.0, "logprobs": 5},
    "temperature": {"temperature": 1.0},
    "temperature, min_p": {"temperature": 1.0, "min_p": 0.05},
    "temperature, top_k 40": {"temperature": 1.0, "top_k": 40},
    "temperature, top_p 0.95": {"temperature": 1.0, "top_p": 0.95},
    "temperature, top_k, top_p": {"temperature": 0.8, "top_k": 40, "top_p": 0.95},
    "temperature 2, top_p 0.99": {"temperature": 2.0, "top_p": 0.99},
    "temperature, 20 logprobs": {"temperature": 1.0, "logprobs": 20},
}
_PROMPT, _OUTPUT = 200, 100
_TURN = 6


def rows_like_a_models(count: int, vocab_size: int) -> NDArray[np.float32]:
    """A wide bulk of unlikely tokens, and some dozens that stand out."""
    generator = np.random.default_rng(0)
    rows = generator.normal(-4, 2.2, (count, vocab_size))
    for row in rows:
        row[generator.integers(0, vocab_size, 40)] += 4 + generator.exponential(4, 40)
    return rows.astype(np.float32)


def requests(kind: dict[str, Any], count: int, vocab_size: int) -> list[Request]:
    generator = np.random.default_rng(1)
    return [
        Request(
            f"{row}",
            SamplingParams(max_tokens=4096, seed=row, **kind),
            generator.integers(0, vocab_size, _PROMPT + _OUTPUT).tolist(),
            _PROMPT,
            0,
            0,
            frozenset({2}),
        )
        for row in range(count)
    ]


def milliseconds(call: Callable[[], object]) -> float:
    began = time.perf_counter()
    call()
    return (time.perf_counter() - began) * 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=32)
    parser.add_argument("--vocab", type=int, default=49_152)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--plain", action="store_true", help="the plain sampler too; it takes a hundred times as long")
    options = parser.parse_args()
    logits = rows_like_a_models(options.rows, options.vocab)
    began = time.perf_counter()
    samplers: dict[str, Sampler] = {f"{options.threads} threads": CompiledSampler(options.vocab, options.threads)}
    ready = time.perf_counter() - began
    samplers["1 thread"] = CompiledSampler(options.vocab, 1)
    if options.plain:
        samplers["plain"] = PlainSampler()
    batches = {name: requests(kind, options.rows, options.vocab) for name, kind in KINDS.items()}
    taken: dict[tuple[str, str], list[float]] = defaultdict(list)
    floors = []
    for number in range(options.rounds):
        for which, sampler in samplers.items():
            for name, batch in batches.items():
                if which != "plain" or number == 0:
                    steps = [milliseconds(partial(sampler.sample, logits, batch)) for _ in range(_TURN)]
                    taken[which, name] += steps[1:]
        floors.append(min(milliseconds(logits.sum) for _ in range(_TURN)))
    floor = min(floors)
    print(f"{options.rows} rows of {options.vocab} logits, {logits.nbytes / 1e6:.1f} MB.", end=" ")
    print(f"Floor, one thread: {floor:.2f} ms. First compilation or load: {ready:.1f} s. Milliseconds, min (median):\n")
    print("| request |", " | ".join(samplers), "|")
    print("|---|" + "---|" * len(samplers))
    for name in batches:
        cells = (f"{min(taken[which, name]):.2f} ({statistics.median(taken[which, name]):.2f})" for which in samplers)
        print(f"| {name} |", " | ".join(cells), "|")


if __name__ == "__main__":
    main()
