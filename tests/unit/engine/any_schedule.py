"""Compares random schedules with solo runs, token by token; knows the engine's border and nothing inside it.

    python -m tests.unit.engine.any_schedule --schedules 1000 [--model tiny|PATH] [--backend torch|cpu|cuda]

Each schedule draws some requests and a life for them: two engines with small page pools, budgets and prefix caches of
their own, arrivals over many steps, beginnings in common, neighbours aborted, and for most requests a stop, after which
they go on in the other engine or in the same one. The solo run has one engine with a large pool and no prefix cache,
one request at a time and one chunk size. One JSON line a schedule, then the total in words; exit 1 if anything differs.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from engine import Engine, EngineConfig, RequestOutput, Resume, TokenLogprobs
from engine.loading import LoadedModel, load_model
from tests.tiny_model import write_tiny_model
from tests.unit.engine.drawn_schedule import PAGE_SIZES, Case, Knobs, Plan, draw

_SOLO_CHUNK = 48
_SOLO_TOKENS = 512
# Pages of each model that schedules take theirs from: as much as the largest of them may want.
_POOL_TOKENS = 4096
# Far more steps than any schedule needs: one that stands still is an error and not an endless loop.
_STEP_LIMIT = 100_000


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
