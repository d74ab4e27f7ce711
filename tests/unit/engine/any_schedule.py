"""Compares random schedules with solo runs, token by token; knows the engine's border and nothing inside it.

    python -m tests.unit.engine.any_schedule --model PATH --seeds 10 [--first-seed N]

Each seed draws some requests and a life for them: two engines with small page pools and budgets of their own, arrivals
over many steps, neighbours aborted, and one stop for each request, after which it goes on in the other engine or in
the same one. The solo run has one engine with a large pool, one request at a time and one chunk size. One JSON line a
seed, then the total; exit 1 if anything differs.
"""

import argparse
import json
import math
import random
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TypeVar

from engine import Engine, EngineConfig, RequestOutput, Resume, SamplingParams, TokenLogprobs
from engine.loaders import describe

MAX_PROMPT, MAX_OUTPUT, MAX_BUDGET = 300, 64, 256
_SOLO_CHUNK = 48
_SOLO_TOKENS = 512
# Far more steps than any seed needs: a schedule that stands still is an error and not an endless loop.
_STEP_LIMIT = 100_000

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Case:
    """One request and what happens to it. `stop_at`, `abort_at`: lengths of output; `abort_at` None: it ends itself."""

    id: str
    prompt: tuple[int, ...]
    params: SamplingParams
    priority: int
    arrives: int
    stop_at: int
    moves: bool
    abort_at: int | None


@dataclass(frozen=True, slots=True)
class Knobs:
    """One engine of a seed."""

    page_size: int
    num_pages: int
    max_batched_tokens: int
    max_num_seqs: int


@dataclass(frozen=True, slots=True)
class Plan:
    cases: tuple[Case, ...]
    engines: tuple[Knobs, Knobs]


@dataclass(frozen=True, slots=True)
class Report:
    """`tokens` were compared, and so many `logprobs` of output and prompt tokens; `differing` of them (or a missing
    one, or a finish reason) were not the solo run's."""

    seeds: int = 0
    requests: int = 0
    tokens: int = 0
    logprobs: int = 0
    differing: int = 0
    preemptions: int = 0
    stops: int = 0
    aborts: int = 0
    steps: int = 0
    most_running: int = 0
    seconds: float = 0.0

    def __add__(self, other: "Report") -> "Report":
        total = {name: value + getattr(other, name) for name, value in asdict(self).items()}
        return Report(**total | {"most_running": max(self.most_running, other.most_running)})


@dataclass(slots=True)
class Story:
    """What one request has shown so far, over all its attempts."""

    case: Case
    tokens: list[int] = field(default_factory=list)
    logprobs: list[TokenLogprobs] = field(default_factory=list)
    prompt_logprobs: tuple[TokenLogprobs | None, ...] = ()
    finish_reason: str | None = None
    place: int = 0
    arrived: bool = False
    stopped: bool = False
    aborted: bool = False

    @property
    def over(self) -> bool:
        return self.aborted or self.finish_reason is not None

    def hear(self, output: RequestOutput) -> None:
        assert output.error is None, output.error
        assert output.offset == len(self.tokens), "an offset was skipped or shown twice"
        assert not (output.offset and output.prompt_logprobs), "the prompt was explained twice"
        self.tokens += output.token_ids
        self.logprobs += output.logprobs
        self.prompt_logprobs = self.prompt_logprobs or output.prompt_logprobs
        self.finish_reason = output.finish_reason


def draw(seed: int, vocab_size: int) -> Plan:
    """A function of its arguments alone."""
    dice = random.Random(seed)
    # Half of the seeds have long prompts, to be prefilled in chunks; half have short ones, which are admitted together
    # and have to give way to each other while they grow.
    long = dice.random() < 0.5
    count, longest = (_log_uniform(dice, 2, 16), MAX_PROMPT) if long else (dice.randint(3, 7), 12)
    cases = tuple(_draw_case(dice, index, vocab_size, longest) for index in range(count))
    lengths = [len(case.prompt) + case.params.max_tokens for case in cases]
    return Plan(cases, (_draw_knobs(dice, lengths), _draw_knobs(dice, lengths)))


def _draw_case(dice: random.Random, index: int, vocab_size: int, longest: int) -> Case:
    prompt = tuple(dice.randrange(vocab_size) for _ in range(_log_uniform(dice, 1, longest)))
    max_tokens = _log_uniform(dice, 1, MAX_OUTPUT) if longest == MAX_PROMPT else dice.randint(1, MAX_OUTPUT)
    params = SamplingParams(
        max_tokens=max_tokens,
        temperature=0.0,
        ignore_eos=dice.random() < 0.6,
        min_tokens=_sometimes(dice, 0.3, dice.randint(0, max_tokens), 0),
        logit_bias=_sometimes(dice, 0.2, {dice.randrange(vocab_size): dice.uniform(-5, 5)}, {}),
        stop_token_ids=_sometimes(dice, 0.2, tuple(dice.sample(range(vocab_size), 5)), ()),
    )
    if dice.random() < 0.5:
        params = _sampled(dice, params, vocab_size)
    params = _explained(dice, params)
    return Case(
        id=f"request-{index}",
        prompt=prompt,
        params=params,
        priority=_sometimes(dice, 0.2, 1, 0),
        arrives=_sometimes(dice, 0.3, dice.randint(0, 40), 0),
        stop_at=dice.randrange(max_tokens),
        moves=dice.random() < 0.5,
        abort_at=_sometimes(dice, 0.15, dice.randrange(max_tokens), None),
    )


def _explained(dice: random.Random, params: SamplingParams) -> SamplingParams:
    """Some want log probabilities, and a few of those nothing but the prompt's."""
    params = replace(
        params,
        logprobs=_sometimes(dice, 0.3, dice.randint(0, 20), None),
        prompt_logprobs=_sometimes(dice, 0.3, dice.randint(0, 20), None),
    )
    alone = params.prompt_logprobs is not None and dice.random() < 0.3
    return replace(params, max_tokens=0, min_tokens=0) if alone else params


def _sampled(dice: random.Random, params: SamplingParams, vocab_size: int) -> SamplingParams:
    return replace(
        params,
        temperature=dice.uniform(0.3, 1.5),
        top_k=_sometimes(dice, 0.3, dice.randint(1, vocab_size), 0),
        top_p=_sometimes(dice, 0.3, dice.uniform(0.3, 0.99), 1.0),
        min_p=_sometimes(dice, 0.2, dice.uniform(0.001, 0.2), 0.0),
        frequency_penalty=_sometimes(dice, 0.2, dice.uniform(-1, 2), 0.0),
        presence_penalty=_sometimes(dice, 0.2, dice.uniform(-1, 2), 0.0),
        repetition_penalty=_sometimes(dice, 0.2, dice.uniform(0.8, 1.5), 1.0),
        seed=dice.getrandbits(64),
        choice=dice.randint(0, 3),
    )


def _draw_knobs(dice: random.Random, lengths: Sequence[int]) -> Knobs:
    """A pool that holds the longest request, and of all together a part: so they have to give way to each other."""
    page_size = dice.choice((4, 8, 16))
    wanted = max(max(lengths), dice.uniform(0.1, 0.4) * sum(lengths))
    return Knobs(
        page_size=page_size,
        num_pages=math.ceil(wanted / page_size),
        max_batched_tokens=max(1, round(MAX_BUDGET * dice.random() ** 2)),
        max_num_seqs=dice.randint(2, 16),
    )


def _log_uniform(dice: random.Random, low: int, high: int) -> int:
    """Short ones as often as long ones, from `low` to `high`."""
    return min(high, int(low * ((high + 1) / low) ** dice.random()))


def _sometimes(dice: random.Random, chance: float, value: T, other: T) -> T:
    return value if dice.random() < chance else other


class AnySchedule:
    """Runs seeds on one model; the engine of the solo runs is shared by all."""

    def __init__(self, model: str | Path, threads: int | None = None) -> None:
        self._model = model
        self._threads = threads
        self._vocab_size = describe(model).vocab_size
        self._solo = self._engine(Knobs(16, -(-_SOLO_TOKENS // 16), _SOLO_CHUNK, 1))

    def run(self, seed: int) -> Report:
        began = time.monotonic()
        plan = draw(seed, self._vocab_size)
        stories, report = self._live(plan)
        for story in stories:
            report += self._compare(story)
        return replace(report, seeds=1, seconds=round(time.monotonic() - began, 3))

    def _engine(self, knobs: Knobs) -> Engine:
        return Engine(EngineConfig(self._model, device="cpu", threads=self._threads, **asdict(knobs)))

    def _live(self, plan: Plan) -> tuple[list[Story], Report]:
        engines = [self._engine(knobs) for knobs in plan.engines]
        stories = {case.id: Story(case) for case in plan.cases}
        coming = sorted(plan.cases, key=lambda case: case.arrives, reverse=True)
        steps = preemptions = most = 0
        while coming or any(engine.has_unfinished for engine in engines):
            assert steps < _STEP_LIMIT, "the schedule stands still"
            while coming and coming[-1].arrives <= steps:
                case = coming.pop()
                engines[0].add_request(case.id, case.prompt, case.params, priority=case.priority)
                stories[case.id].arrived = True
            for engine in engines:
                if engine.has_unfinished:
                    step = engine.step()
                    preemptions += step.stats.preemptions
                    most = max(most, step.stats.running)
                    for output in step.outputs:
                        stories[output.request_id].hear(output)
            for story in stories.values():
                _interfere(story, engines)
            steps += 1
        for engine in engines:
            engine.check_integrity()
            assert engine.budget().free_tokens == engine.budget().total_tokens, "pages were not given back"
        done = list(stories.values())
        assert all(story.over for story in done)
        return done, Report(
            requests=len(done),
            preemptions=preemptions,
            stops=sum(story.stopped for story in done),
            aborts=sum(story.aborted for story in done),
            steps=steps,
            most_running=most,
        )

    def _compare(self, story: Story) -> Report:
        """What was compared, and how much of it differs. An aborted request is compared as far as it came."""
        alone = self._solo.generate([story.case.prompt], story.case.params)[0]
        shown = len(story.tokens) if story.aborted else None
        prompt = () if story.aborted and not story.prompt_logprobs else alone.prompt_logprobs
        differing = _differing(story.tokens, alone.token_ids[:shown])
        differing += _differing(story.logprobs, alone.logprobs[:shown])
        differing += _differing(story.prompt_logprobs, prompt)
        differing += not story.aborted and story.finish_reason != alone.finish_reason
        logprobs = len(story.logprobs) + len(story.prompt_logprobs)
        return Report(tokens=len(story.tokens), logprobs=logprobs, differing=differing)


def _differing(ours: Sequence[object], theirs: Sequence[object]) -> int:
    """Places at which two rows are not the same, the missing ones of the shorter among them."""
    return sum(mine != wanted for mine, wanted in zip(ours, theirs, strict=False)) + abs(len(ours) - len(theirs))


def _interfere(story: Story, engines: Sequence[Engine]) -> None:
    """Abort a request, or stop it and let it go on, when its output is as long as was drawn for it."""
    case, here = story.case, engines[story.place]
    if not story.arrived or story.over:
        return
    if case.abort_at is not None and len(story.tokens) >= case.abort_at:
        assert here.abort(case.id)
        story.aborted = True
        here.check_integrity()
    elif not story.stopped and len(story.tokens) >= case.stop_at:
        snapshot = here.snapshot(case.id)
        assert snapshot is not None
        assert list(snapshot.token_ids) == story.tokens
        assert here.abort(case.id)
        story.place = 1 if case.moves else 0
        story.stopped = True
        resume = Resume(snapshot.token_ids)
        engines[story.place].add_request(case.id, case.prompt, case.params, resume, priority=case.priority)
        for engine in engines:
            engine.check_integrity()


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Any schedule, same tokens.")
    parser.add_argument("--model", required=True, help="a GGUF file")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1, help="more make a shared machine crawl")
    options = parser.parse_args(arguments)
    runs, total = AnySchedule(options.model, options.threads), Report()
    for seed in range(options.first_seed, options.first_seed + options.seeds):
        report = runs.run(seed)
        print(json.dumps({"seed": seed} | asdict(report)), flush=True)
        total += report
    print(json.dumps({"total": asdict(total)}), flush=True)
    return 1 if total.differing else 0


if __name__ == "__main__":
    sys.exit(main())
