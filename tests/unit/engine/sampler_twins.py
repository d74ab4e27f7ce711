"""Compares the fast sampler with the plain one on random rows, requests and steps; knows both by their border alone.

    python -m tests.unit.engine.sampler_twins --rows 1000000 [--first-seed N]

Each seed draws a batch: a vocabulary, rows of some shape (flat, peaked, with ties, with values that are not finite),
and a request with parameters of its own for each. The requests then take some steps. Writes what was compared; exit 1
if any token, failure or log probability differs.
"""

import argparse
import random
import sys
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from engine.compiled_sampler import CompiledSampler
from engine.request import Request, SamplingParams
from engine.sampler import PlainSampler

Rows = NDArray[np.float32]

VOCABULARIES = (1, 2, 31, 63, 64, 65, 300, 1000, 2049, 5000)
_STEPS = 3


def draw_rows(generator: np.random.Generator, count: int, vocab_size: int) -> Rows:
    """Of one shape each."""
    shapes: Sequence[Callable[[], NDArray[np.float64]]] = (
        lambda: generator.normal(0, 2.5, vocab_size),
        lambda: generator.normal(0, 0.05, vocab_size),
        lambda: generator.normal(0, 12, vocab_size),
        lambda: np.rint(generator.normal(0, 2, vocab_size)),  # many ties
        lambda: np.rint(generator.normal(-3, 1, vocab_size)) * (generator.random(vocab_size) < 0.3),  # and -0
        lambda: np.full(vocab_size, generator.normal()),
        lambda: generator.normal(0, 1e37, vocab_size),
        lambda: np.where(
            np.arange(vocab_size) == generator.integers(vocab_size), 40.0, generator.normal(0, 3, vocab_size)
        ),
    )
    rows = np.stack([shapes[int(generator.integers(len(shapes)))]() for _ in range(count)]).astype(np.float32)
    if generator.random() < 0.2:
        where = generator.integers(count), generator.integers(vocab_size)
        rows[where] = generator.choice([np.nan, np.inf, -np.inf])
    return rows


def draw_request(dice: random.Random, name: str, vocab_size: int) -> Request:
    def token() -> int:
        return dice.randrange(vocab_size)

    def perhaps(value: object, other: object, chance: float = 0.3) -> object:
        return value if dice.random() < chance else other

    params: dict[str, object] = {
        "temperature": perhaps(0.0, dice.choice([1.0, dice.uniform(0.1, 3), 1e-3, 100.0])),
        "top_k": perhaps(dice.randint(1, vocab_size + 2), 0),
        "top_p": perhaps(dice.choice([dice.uniform(0.01, 1), 0.999999, 0.9]), 1.0),
        "min_p": perhaps(dice.choice([dice.random() ** 4, 1.0]), 0.0, 0.2),
        "frequency_penalty": perhaps(dice.uniform(-2, 2), 0.0),
        "presence_penalty": perhaps(dice.uniform(-2, 2), 0.0),
        "repetition_penalty": perhaps(dice.uniform(0.5, 2), 1.0),
        "logit_bias": perhaps({token(): dice.uniform(-9, 9) for _ in range(4)}, {}),
        "bad_words": perhaps(tuple(tuple(token() for _ in range(dice.randint(1, 3))) for _ in range(6)), ()),
        "min_tokens": perhaps(dice.randint(1, 9), 0),
        "logprobs": perhaps(dice.randint(0, 20), None),
    }
    ids = [token() for _ in range(dice.randint(1, 40))]
    return Request(
        name,
        SamplingParams(max_tokens=99, seed=dice.getrandbits(64), choice=dice.randint(0, 2), **params),  # type: ignore[arg-type]
        ids,
        dice.randint(1, len(ids)),
        0,
        0,
        frozenset(token() for _ in range(2)),
    )


def differing(seed: int, samplers: dict[int, CompiledSampler], threads: int = 3) -> tuple[int, int]:
    """Rows compared, and how many of them differ. `samplers` are kept by vocabulary from one seed to the next."""
    dice, generator = random.Random(seed), np.random.default_rng(seed)
    vocab_size = dice.choice(VOCABULARIES)
    fast = samplers.setdefault(vocab_size, CompiledSampler(vocab_size, threads))
    plain = PlainSampler()
    requests = [draw_request(dice, f"{seed}-{number}", vocab_size) for number in range(dice.randint(1, 12))]
    rows = wrong = 0
    for _ in range(_STEPS):
        dice.shuffle(requests)
        logits = draw_rows(generator, len(requests), vocab_size)
        masks = {
            request.id: generator.integers(0, 1 << 32, -(-vocab_size // 32), dtype=np.uint32)
            for request in requests
            if dice.random() < 0.2
        }
        ours, wanted = fast.sample(logits, requests, masks), plain.sample(logits, requests, masks)
        for request in requests:
            name = request.id
            rows += 1
            wrong += (
                ours.tokens.get(name) != wanted.tokens.get(name)
                or ours.failures.get(name) != wanted.failures.get(name)
                or ours.logprobs.get(name) != wanted.logprobs.get(name)
            )
            if name in wanted.tokens and dice.random() < 0.8:
                request.ids.append(wanted.tokens[name])
        targets = [dice.randrange(vocab_size) for _ in requests]
        alternatives = dice.randint(0, 20)
        wrong += fast.explain(logits, targets, alternatives) != plain.explain(logits, targets, alternatives)
    return rows, wrong


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="The fast sampler and the plain one choose the same tokens.")
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--first-seed", type=int, default=0)
    options = parser.parse_args(arguments)
    samplers: dict[int, CompiledSampler] = {}
    rows = wrong = 0
    seed = options.first_seed
    while rows < options.rows:
        some, bad = differing(seed, samplers)
        if bad:
            sys.stdout.write(f"seed {seed}: {bad} of {some} rows differ\n")
        rows, wrong, seed = rows + some, wrong + bad, seed + 1
    sys.stdout.write(f"{rows} rows of {seed - options.first_seed} batches, {wrong} differ\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
