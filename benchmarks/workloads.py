"""What is asked of an engine in a measurement: prompts as token ids and how many tokens each gets. Knows no engine.

Prompts are random ids, new ones for every draw, so that no engine's prefix cache ever meets a prompt again; the only
shared tokens are those that a workload shares on purpose.
"""

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

# Ordinary tokens of any vocabulary of 40,000 or more: control tokens stand at one end or the other.
_LOWEST_ID: Final = 1_000
_HIGHEST_ID: Final = 40_000
_SKEW_SEED: Final = 48_200


@dataclass(frozen=True, slots=True)
class Ask:
    """One request: greedy, exactly `new_tokens` of output, whatever they are."""

    prompt: tuple[int, ...]
    new_tokens: int


@dataclass(frozen=True, slots=True)
class Workload:
    """All of its requests are handed over at once. `draw` takes the seed of the token ids; lengths never change."""

    name: str
    title: str
    draw: Callable[[str], tuple[Ask, ...]]


def uniform(name: str, count: int, prompt: int, new_tokens: int) -> Workload:
    """`count` requests of one shape."""

    def draw(seed: str) -> tuple[Ask, ...]:
        source = random.Random(f"{name}/{seed}")
        return tuple(Ask(_ids(source, prompt), new_tokens) for _ in range(count))

    return Workload(name, f"N={count}", draw)


def skewed(name: str, count: int, prompts: tuple[int, int], outputs: tuple[int, int]) -> Workload:
    """Lengths drawn evenly between two bounds, once and for all."""
    source = random.Random(_SKEW_SEED)
    lengths = [(source.randint(*prompts), source.randint(*outputs)) for _ in range(count)]

    def draw(seed: str) -> tuple[Ask, ...]:
        ids = random.Random(f"{name}/{seed}")
        return tuple(Ask(_ids(ids, prompt), new_tokens) for prompt, new_tokens in lengths)

    return Workload(name, f"{count} skewed", draw)


def shared_prefix(name: str, count: int, shared: int, own: int, new_tokens: int) -> Workload:
    """`count` requests that begin with the same `shared` tokens."""

    def draw(seed: str) -> tuple[Ask, ...]:
        source = random.Random(f"{name}/{seed}")
        prefix = _ids(source, shared)
        return tuple(Ask(prefix + _ids(source, own), new_tokens) for _ in range(count))

    return Workload(name, f"{count} share {shared}", draw)


def warm_up(workload: Workload) -> tuple[Ask, ...]:
    """As many requests as the workload has, short ones: what an engine sets up by their number is then set up."""
    source = random.Random(f"warm-up/{workload.name}")
    return tuple(Ask(_ids(source, 64), 4) for _ in workload.draw("warm-up"))


def output_tokens(asks: tuple[Ask, ...]) -> int:
    return sum(ask.new_tokens for ask in asks)


def _ids(source: random.Random, count: int) -> tuple[int, ...]:
    return tuple(source.randrange(_LOWEST_ID, _HIGHEST_ID) for _ in range(count))


WORKLOADS: Final[Mapping[str, Workload]] = MappingProxyType(
    {
        workload.name: workload
        for workload in (
            *(uniform(f"n{count}", count, prompt=128, new_tokens=64) for count in (1, 8, 16, 32)),
            skewed("skewed", 48, prompts=(20, 800), outputs=(10, 200)),
            shared_prefix("prefix", 32, shared=512, own=32, new_tokens=16),
        )
    }
)
