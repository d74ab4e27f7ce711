"""Compares random schedules with solo runs, token by token; knows the engine's border and nothing inside it.

    python -m tests.unit.engine.any_schedule --schedules 1000 [--model tiny|PATH] [--backend torch|cpu|cuda]

Each schedule draws some requests and a life for them: two engines with small page pools, budgets and prefix caches of
their own, arrivals over many steps, beginnings in common, neighbours aborted, and for most requests a stop, after which
they go on in the other engine or in the same one. The solo run has one engine with a large pool and no prefix cache,
one request at a time and one chunk size. One JSON line a schedule, then the total in words; exit 1 if anything differs.
"""

import argparse
import json
import random
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TypeVar

from engine import Engine, EngineConfig, RequestOutput, Resume, SamplingParams, TokenLogprobs
from engine.loading import LoadedModel, load_model
from tests.tiny_model import write_tiny_model

MAX_PROMPT, MAX_BUDGET = 300, 256
PAGE_SIZES = (16, 32)
SMALL_PAGES = (4, 8, 16)
"""Finer to share and to run out of; for backends that take them."""
_SOLO_CHUNK = 48
_SOLO_TOKENS = 512
# Pages of each model that schedules take theirs from: as much as the largest of them may want.
_POOL_TOKENS = 4096
# Far more steps than any schedule needs: one that stands still is an error and not an endless loop.
_STEP_LIMIT = 100_000

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Case:
    """One request and what happens to it. `stop_at`, `abort_at`: lengths of output at which it does, None: never."""

    id: str
    prompt: tuple[int, ...]
    params: SamplingParams
    priority: int
    arrives: int
    stop_at: int | None
    moves: bool
    abort_at: int | None


@dataclass(frozen=True, slots=True)
class Knobs:
    """One engine of a schedule."""

    page_size: int
    num_pages: int
    max_batched_tokens: int
    max_num_seqs: int
    prefix_cache: bool


@dataclass(frozen=True, slots=True)
class Plan:
    cases: tuple[Case, ...]
    engines: tuple[Knobs, Knobs]


@dataclass(frozen=True, slots=True)
class Report:
    """`tokens` were compared, and so many `logprobs` of output and prompt tokens; `differing` of them (or a missing
    one, or a finish reason) were not the solo run's. `cached_tokens` of prompts came from a prefix cache, for `hits`
    requests; `resumes` went on from a random offset, `moves` of them in another engine."""

    schedules: int = 0
    requests: int = 0
    sampled: int = 0
    tokens: int = 0
    logprobs: int = 0
    differing: int = 0
    preemptions: int = 0
    hits: int = 0
    cached_tokens: int = 0
    resumes: int = 0
    moves: int = 0
    aborts: int = 0
    steps: int = 0
    most_running: int = 0
    widest_step: int = 0
    seconds: float = 0.0

    def __add__(self, other: "Report") -> "Report":
        total = {name: value + getattr(other, name) for name, value in asdict(self).items()}
        most = {name: max(getattr(self, name), getattr(other, name)) for name in ("most_running", "widest_step")}
        return Report(**total | most)

    def __str__(self) -> str:
        return (
            f"{self.schedules} schedules of {self.requests} requests ({self.sampled} sampled): {self.preemptions} "
            f"preemptions, {self.hits} prefix hits of {self.cached_tokens} tokens, {self.resumes} resumes "
            f"({self.moves} elsewhere), {self.aborts} aborts; up to {self.most_running} at once and "
            f"{self.widest_step} rows a step. "
            f"Compared {self.tokens} tokens and {self.logprobs} log probabilities: {self.differing} differ. "
            f"{self.seconds:.0f} s."
        )


@dataclass(frozen=True, slots=True)
class Kind:
    """How requests of a schedule are alike. `pool`: the pages of an engine, 0 for what all prompts fill, 1 for what
    they and all outputs could."""

    requests: tuple[int, int]
    prompts: tuple[int, int]
    outputs: tuple[int, int]
    pool: tuple[float, float]
    seqs: tuple[int, int]


KINDS = (
    # Prefilled in chunks beside decodes.
    Kind(requests=(2, 6), prompts=(1, MAX_PROMPT), outputs=(1, 24), pool=(-0.8, 0.2), seqs=(2, 8)),
    # A batch of many, which outgrow the pool together.
    Kind(requests=(18, 26), prompts=(1, 40), outputs=(6, 20), pool=(-0.2, 0.1), seqs=(18, 32)),
    # A few that give way to each other again and again.
    Kind(requests=(4, 7), prompts=(1, 36), outputs=(16, 40), pool=(-0.8, 0.0), seqs=(4, 8)),
)


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
    hit: bool = False

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
        self.hit = self.hit or output.cached_tokens > 0


def draw(seed: int, vocab_size: int, page_sizes: Sequence[int] = PAGE_SIZES) -> Plan:
    """A function of its arguments alone."""
    dice = random.Random(seed)
    kind = dice.choice(KINDS)
    beginnings = _beginnings(dice, vocab_size, kind.prompts[1])
    cases = tuple(
        _draw_case(dice, index, vocab_size, kind, beginnings) for index in range(dice.randint(*kind.requests))
    )
    return Plan(cases, (_draw_knobs(dice, kind, cases, page_sizes), _draw_knobs(dice, kind, cases, page_sizes)))


def _beginnings(dice: random.Random, vocab_size: int, length: int) -> tuple[tuple[int, ...], ...]:
    """Two that differ in their first page and in no other: what is kept of one must not be taken for the other's."""
    one = _ids(dice, vocab_size, length)
    page = 16 if length > 32 else 4
    return one, _ids(dice, vocab_size, page) + one[page:]


def _ids(dice: random.Random, vocab_size: int, count: int) -> tuple[int, ...]:
    return tuple(dice.randrange(vocab_size) for _ in range(count))


def _draw_case(
    dice: random.Random, index: int, vocab_size: int, kind: Kind, beginnings: Sequence[tuple[int, ...]]
) -> Case:
    length = _log_uniform(dice, *kind.prompts)
    # Most begin like others do, and some of those are nothing but a beginning.
    shared = _sometimes(dice, 0.7, dice.choice((length, dice.randint(0, length))), 0)
    prompt = dice.choice(beginnings)[:shared] + _ids(dice, vocab_size, length - shared)
    max_tokens = dice.randint(*kind.outputs)
    params = SamplingParams(
        max_tokens=max_tokens,
        temperature=0.0,
        ignore_eos=dice.random() < 0.8,
        min_tokens=_sometimes(dice, 0.3, dice.randint(0, max_tokens), 0),
        logit_bias=_sometimes(dice, 0.2, {dice.randrange(vocab_size): dice.uniform(-5, 5)}, {}),
        stop_token_ids=_sometimes(dice, 0.1, tuple(dice.sample(range(vocab_size), 5)), ()),
    )
    if dice.random() < 0.5:
        params = _sampled(dice, params, vocab_size)
    params = _explained(dice, params)
    return Case(
        id=f"request-{index}",
        prompt=prompt,
        params=params,
        priority=_sometimes(dice, 0.2, 1, 0),
        arrives=_sometimes(dice, 0.2, dice.randint(0, 40), 0),
        stop_at=_sometimes(dice, 0.6, dice.randrange(max_tokens), None),
        moves=dice.random() < 0.5,
        abort_at=_sometimes(dice, 0.15, dice.randrange(max_tokens), None),
    )


def _explained(dice: random.Random, params: SamplingParams) -> SamplingParams:
    """Most want log probabilities, which show a last bit that tokens hide; a few want nothing but the prompt's."""
    params = replace(
        params,
        logprobs=_sometimes(dice, 0.7, dice.randint(0, 20), None),
        prompt_logprobs=_sometimes(dice, 0.2, dice.randint(0, 20), None),
    )
    alone = params.prompt_logprobs is not None and dice.random() < 0.2
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


def _draw_knobs(dice: random.Random, kind: Kind, cases: Sequence[Case], page_sizes: Sequence[int]) -> Knobs:
    """A pool that holds the longest request, and of all together a part: so they have to give way to each other."""
    page_size, seqs = dice.choice(page_sizes), dice.randint(*kind.seqs)
    begun = [-(-(len(case.prompt) + 1) // page_size) for case in cases]
    ended = [-(-(len(case.prompt) + case.params.max_tokens) // page_size) for case in cases]
    wanted = sum(begun) + dice.uniform(*kind.pool) * (sum(ended) - sum(begun))
    return Knobs(
        page_size=page_size,
        num_pages=max(*ended, round(wanted)),
        max_batched_tokens=dice.choice((dice.randint(1, seqs), dice.randint(seqs, MAX_BUDGET), MAX_BUDGET)),
        max_num_seqs=seqs,
        prefix_cache=dice.random() < 0.8,
    )


def _log_uniform(dice: random.Random, low: int, high: int) -> int:
    """Short ones as often as long ones, from `low` to `high`."""
    return min(high, int(low * ((high + 1) / low) ** dice.random()))


def _sometimes(dice: random.Random, chance: float, value: T, other: T) -> T:
    return value if dice.random() < chance else other


class AnySchedule:
    """Runs schedules on one model. Each engine of a schedule is new, on a model that an earlier one may have used.
    `load` says how models come to be, `load_alone` that of solo runs, if it is to be another."""

    def __init__(
        self,
        model: str | Path,
        threads: int | None = None,
        backend: str = "auto",
        page_sizes: Sequence[int] = PAGE_SIZES,
        load: Callable[[EngineConfig], LoadedModel] = load_model,
        load_alone: Callable[[EngineConfig], LoadedModel] | None = None,
    ) -> None:
        device = {"auto": "auto", "cuda": "cuda"}.get(backend, "cpu")
        self._config = EngineConfig(model, device=device, backend=backend, threads=threads, step_seconds=None)
        self._page_sizes = tuple(page_sizes)
        self._models: dict[tuple[int, int], LoadedModel] = {}
        solo = Knobs(16, -(-_SOLO_TOKENS // 16), _SOLO_CHUNK, 1, prefix_cache=False)
        self._load = load
        alone = replace(self._config, **asdict(solo))
        self._solo = Engine(alone, loaded=(load_alone or load)(alone))
        self._vocab_size = self._solo.description.vocab_size

    def run(self, seed: int) -> Report:
        began = time.monotonic()
        plan = draw(seed, self._vocab_size, self._page_sizes)
        stories, report = self._live(plan)
        for story in stories:
            report += self._compare(story)
        return replace(report, schedules=1, seconds=round(time.monotonic() - began, 3))

    def _engine(self, place: int, knobs: Knobs) -> Engine:
        where = place, knobs.page_size
        if where not in self._models:
            pages = -(-_POOL_TOKENS // knobs.page_size)
            loaded = self._load(replace(self._config, page_size=knobs.page_size, num_pages=pages))
            assert loaded.digest == self._solo.digest, f"pages of {knobs.page_size} are another backend's"
            self._models[where] = loaded
        return Engine(replace(self._config, **asdict(knobs)), loaded=self._models[where])

    def _live(self, plan: Plan) -> tuple[list[Story], Report]:
        engines = [self._engine(place, knobs) for place, knobs in enumerate(plan.engines)]
        stories = {case.id: Story(case) for case in plan.cases}
        coming = sorted(plan.cases, key=lambda case: case.arrives, reverse=True)
        steps = preemptions = most = cached = widest = 0
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
                    cached += step.stats.cached_tokens
                    most = max(most, step.stats.running)
                    widest = max(widest, step.stats.prefill_tokens + step.stats.decode_rows)
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
            sampled=sum(story.case.params.temperature > 0 for story in done),
            preemptions=preemptions,
            hits=sum(story.hit for story in done),
            cached_tokens=cached,
            resumes=sum(story.stopped for story in done),
            moves=sum(story.stopped and story.case.moves for story in done),
            aborts=sum(story.aborted for story in done),
            steps=steps,
            most_running=most,
            widest_step=widest,
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
    elif case.stop_at is not None and not story.stopped and len(story.tokens) >= case.stop_at:
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
    parser.add_argument("--model", default="tiny", help="a model file, or 'tiny' for a random one")
    parser.add_argument("--schedules", type=int, default=10)
    parser.add_argument("--first", type=int, default=0, help="the number of the first schedule")
    parser.add_argument("--backend", default="auto")
    parser.add_argument("--threads", type=int, default=1, help="more make a shared machine crawl")
    parser.add_argument("--page-sizes", type=int, nargs="+", default=PAGE_SIZES, help="each loads the model twice")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        model = wide_model(Path(folder)) if options.model == "tiny" else options.model
        runs, total = AnySchedule(model, options.threads, options.backend, options.page_sizes), Report()
        for number in range(options.first, options.first + options.schedules):
            report = runs.run(number)
            print(json.dumps({"schedule": number} | asdict(report)), flush=True)
            total += report
    print(total, flush=True)
    return 1 if total.differing else 0


def wide_model(folder: Path) -> Path:
    """Random, and wide enough for products and norms of several groups, with several heads for each key."""
    return write_tiny_model(folder / "wide.gguf", hidden_size=192, ffn_size=448, num_heads=6, num_kv_heads=2)


if __name__ == "__main__":
    sys.exit(main())
