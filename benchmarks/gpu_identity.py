"""Any schedule, same tokens, on this device: requests alone, in company, cut, preempted, padded, as graphs and eagerly.
Knows the engine's border and the shapes of models."""

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch

from engine import SamplingParams
from engine.cuda_backend.graphs import EagerLauncher
from engine.loading import LoadedModel
from tests.unit.engine.any_schedule import AnySchedule, Report, wide_model
from tests.unit.engine.cuda_backend.random_models import SMALL, TINY, Knobs, engine, model, smaller

_SCHEDULES: Final = 60


@dataclass(frozen=True, slots=True)
class Ask:
    prompt: tuple[int, ...]
    params: SamplingParams


@dataclass(frozen=True, slots=True)
class Verdict:
    """`differing` of `tokens` were not those of the request alone, launched kernel by kernel."""

    way: str
    tokens: int
    differing: int


def ways(device: torch.device, numerics: str, *, tiny: bool) -> Iterator[Verdict]:
    """Each way of running the same requests against each of them alone."""
    subject, asks = (TINY, _asks(3, 5, 2)) if tiny else (SMALL, _asks(24, 150, 40))
    longest = max(len(ask.prompt) + ask.params.max_tokens for ask in asks)
    knobs = Knobs(len(asks), 64 if tiny else 512, 400, 128 if tiny else 1024, warms=False)
    eager = model(subject, numerics, knobs, device, EagerLauncher())
    graphs = model(subject, numerics, knobs, device)
    alone = [_run(eager, smaller(knobs, max_num_seqs=1), [ask])[0] for ask in asks]
    few = -(-longest // 16) + 2
    tries = [("in company, as graphs", graphs, knobs)]
    if not tiny:
        tries += [
            ("in company, eagerly", eager, knobs),
            ("alone, as graphs", graphs, smaller(knobs, max_num_seqs=1)),
            ("five at a time, padded to eight", graphs, smaller(knobs, max_num_seqs=5)),
            ("prefill in pieces of 7", graphs, smaller(knobs, max_batched_tokens=7)),
            ("with pages for few, preempted", graphs, smaller(knobs, num_pages=3 * few)),
            ("with no prefix cache", graphs, smaller(knobs, flags={"prefix_cache": False})),
        ]
    for way, loaded, own in tries:
        found = _run(loaded, own, asks)
        differing = sum(_differing(mine, wanted) for mine, wanted in zip(found, alone, strict=True))
        yield Verdict(way, sum(map(len, alone)), differing)


def random_schedules() -> Report:
    """The suite's own driver over this backend: aborts, resumes elsewhere, prefix hits, log probabilities."""
    total = Report()
    with tempfile.TemporaryDirectory() as folder:
        runs = AnySchedule(wide_model(Path(folder)), 1, "cuda", (16,))
        for number in range(_SCHEDULES):
            total += runs.run(number)
    return total


def _asks(count: int, longest: int, most: int) -> list[Ask]:
    asks = []
    for number in range(count):
        prompt = tuple((number * 31 + place * 17) % 90 for place in range(1 + number * longest // count))
        sampled: dict[str, Any] = {"temperature": 0.8, "top_p": 0.9, "repetition_penalty": 1.1, "seed": number}
        params = SamplingParams(
            max_tokens=1 + number * most // count, ignore_eos=True, **(sampled if number % 2 else {"temperature": 0.0})
        )
        asks.append(Ask(prompt, params))
    return asks


def _run(loaded: LoadedModel, knobs: Knobs, asks: Sequence[Ask]) -> list[tuple[int, ...]]:
    some = engine(loaded, knobs)
    found = some.generate([ask.prompt for ask in asks], [ask.params for ask in asks])
    some.check_integrity()
    return [completion.token_ids for completion in found]


def _differing(mine: Sequence[int], wanted: Sequence[int]) -> int:
    same = sum(own == other for own, other in zip(mine, wanted, strict=False))
    return max(len(mine), len(wanted)) - same
