"""The engine: token ids in, token ids out, many requests at once. Knows no text, no jobs and no network."""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final

from engine.block_pool import BlockPool
from engine.bounds import need_kind, need_number, need_whole, whole_ids
from engine.budget import Budget
from engine.config import EngineConfig
from engine.cores import available_cores
from engine.errors import EngineRequestError
from engine.health import Health, Pulse
from engine.loaders import ModelDescription
from engine.loading import LoadedModel, load_model
from engine.outcome import Completion, RequestOutput, Snapshot, completion_of
from engine.pipeline import Pipeline, StepUnderWay
from engine.prefix_cache import PrefixCache
from engine.request import Request, Resume, SamplingParams, due_at
from engine.runner import runner_for
from engine.sampler import host_sampler
from engine.scheduler import Scheduler
from engine.step_output import StepOutput, StepStats
from engine.step_room import StepLimits
from engine.step_sizer import StepSizer

_FURTHEST_CLASS: Final = 1 << 20
_FAR: Final = 1e300  # seconds


class Engine:
    """Call everything but `health` from one thread.

    Loading raises ModelFileError or EngineConfigError. `clock` gives monotonic seconds. `loaded` is a model that was
    loaded before with the same page size, and that no other engine uses any more; of its pages, as many as the config
    asks for are used.
    """

    def __init__(
        self, config: EngineConfig, clock: Callable[[], float] = time.monotonic, *, loaded: LoadedModel | None = None
    ) -> None:
        self._clock = clock
        self._config = config
        self._loaded = loaded or load_model(config)
        self._num_pages = min(self._loaded.num_pages, config.num_pages or self._loaded.num_pages)
        self._cache = PrefixCache(BlockPool(self._num_pages), enabled=config.prefix_cache)
        self._scheduler = Scheduler(self._cache, self._num_pages, config.page_size, config.max_num_seqs)
        model, threads = self._loaded.model, config.threads or available_cores()
        self._runner = runner_for(
            model, config.page_size, lambda: host_sampler(model.vocab_size, threads, config.cache_dir)
        )
        seconds = config.step_seconds
        self._sizer = StepSizer(seconds, config.max_batched_tokens, config.page_size) if seconds else None
        self._arrivals = 0
        self._draining = False
        self._steps = Pipeline(self._runner, clock)
        self._pulse = Pulse()
        self.stats: StepStats | None = None
        """Of the last step."""

    @property
    def digest(self) -> str:
        """Names everything that may change the bits of a token."""
        return self._loaded.digest

    @property
    def description(self) -> ModelDescription:
        """What the model file says of itself."""
        return self._loaded.description

    @property
    def max_context(self) -> int:
        """The most tokens of prompt and output together."""
        return min(self._loaded.max_context, self._num_pages * self._config.page_size)

    @property
    def has_unfinished(self) -> bool:
        """Whether there is something to step for. When the last request has gone, a step with rows of it may still be
        under way: one more call ends it."""
        return self._scheduler.running + self._scheduler.waiting > 0 or not self._steps.is_idle

    def add_request(
        self,
        request_id: str,
        prompt_ids: Sequence[int],
        params: SamplingParams,
        resume: Resume | None = None,
        *,
        priority: int = 0,
        deadline: float | None = None,
    ) -> None:
        """Take a request. Lower `priority` first, then by arrival, unless `deadline` (seconds of the clock) is near;
        `due_at` has the rule. A deadline moves a request forward; that it has passed is for the caller to notice.

        Raises EngineRequestError (`invalid_request`, `context_length_exceeded`, `draining`); nothing was taken then.
        """
        need_kind("params", params, SamplingParams)
        if resume is not None:
            need_kind("resume", resume, Resume)
        prompt = whole_ids("the prompt", prompt_ids)
        resumed = whole_ids("the output to resume", resume.token_ids) if resume else []
        self._check(request_id, prompt, params, resumed)
        need_whole("priority", priority, -_FURTHEST_CLASS, _FURTHEST_CLASS)
        if deadline is not None:
            need_number("deadline", deadline, -_FAR, _FAR)
        own_ends = () if params.ignore_eos else self._loaded.description.eos_ids
        ends = frozenset((*own_ends, *params.stop_token_ids))
        now = self._clock()
        due = due_at(now, priority, deadline)
        request = Request(request_id, params, [*prompt, *resumed], len(prompt), due, self._arrivals, ends)
        self._arrivals += 1
        self._scheduler.add(request)
        self._pulse.meet(request_id, now)

    def step(self) -> StepOutput:
        """Compute one batch; where steps run ahead, the one whose outputs come was begun by an earlier call. Raises
        EngineStepError when a step as a whole failed: no request of it advanced, and the engine is used no more."""
        self._pulse.begin_step(self._clock())
        try:
            step = self._steps.next(lambda: self._scheduler.schedule(self._limits()))
            outputs = self._scheduler.update(step.plan, step.result())
        finally:
            self._pulse.leave_step()
        self.stats = self._note(step, outputs)
        return StepOutput(outputs, self.stats)

    def abort(self, request_id: str) -> bool:
        """End a request and free its pages; False when there is none of that name (any more)."""
        self._pulse.forget(request_id)
        return self._scheduler.remove(request_id)

    def snapshot(self, request_id: str) -> Snapshot | None:
        """What is needed to go on elsewhere, or None when there is no such request."""
        request = self._scheduler.get(request_id)
        return Snapshot(request_id, request.output()) if request else None

    def drain(self) -> tuple[Snapshot, ...]:
        """Take nothing more, end every request and say how far each had come."""
        self._draining = True
        snapshots = tuple(Snapshot(request.id, request.output()) for request in self._scheduler)
        for snapshot in snapshots:
            self.abort(snapshot.request_id)
        return snapshots

    def budget(self) -> Budget:
        """What is free at this moment, between two steps."""
        size, taken = self._config.page_size, self._scheduler.running + self._scheduler.waiting
        free_seqs = max(0, self._config.max_num_seqs - taken)
        return Budget(self._num_pages * size, self._scheduler.spare_pages(self._scheduler) * size, free_seqs)

    def would_fit(self, tokens: int) -> bool:
        """Whether `add_request` would take so many tokens of prompt and output together. Not whether they could run at
        once, which `budget` tells: if the cache is full, the request waits."""
        return tokens <= self.max_context

    def health(self) -> Health:
        """May be asked from another thread too, while a step is under way."""
        return self._pulse.health(self._clock(), self._scheduler.running, self._scheduler.waiting)

    def check_integrity(self) -> None:
        """AssertionError when pages or requests are not all accounted for; an idle engine's pages are all to be had."""
        self._scheduler.check_integrity()
        assert self._pulse.request_ids == {request.id for request in self._scheduler}
        assert self.has_unfinished or self._cache.available == self._num_pages

    def generate(
        self, prompts: Sequence[Sequence[int]], params: SamplingParams | Sequence[SamplingParams]
    ) -> list[Completion]:
        """Offline use, through the same loop: one completion for each prompt, in their order.

        Raises EngineRequestError as `add_request` does, or for a request that failed; the others are then ended too.
        """
        each = [params] * len(prompts) if isinstance(params, SamplingParams) else params
        if len(each) != len(prompts):
            raise EngineRequestError(f"{len(prompts)} prompts cannot have {len(each)} parameters; give one for each")
        if self._scheduler.running + self._scheduler.waiting:
            raise EngineRequestError(
                "other requests are under way, whose outputs would be lost; step them to their end"
            )
        shown: dict[str, list[RequestOutput]] = {f"generate-{number}": [] for number in range(len(prompts))}
        try:
            for request_id, prompt, own in zip(shown, prompts, each, strict=True):
                self.add_request(request_id, prompt, own)
            while self.has_unfinished:
                for output in self.step().outputs:
                    if output.error:
                        raise EngineRequestError(output.error.message, code=output.error.code)
                    shown[output.request_id].append(output)
        finally:
            for request_id in shown:
                self.abort(request_id)
        return [completion_of(outputs) for outputs in shown.values()]

    def _check(self, request_id: str, prompt: list[int], params: SamplingParams, resumed: list[int]) -> None:
        vocab = self._loaded.description.vocab_size
        if self._draining:
            raise EngineRequestError(
                "the engine drains and takes nothing more; give it to another", code="draining", retryable=True
            )
        need_kind("a request's id", request_id, str)
        if request_id in self._scheduler:
            raise EngineRequestError(f"there is a request {request_id!r} already; abort it, or use another id")
        if not prompt:
            raise EngineRequestError("the prompt is empty; give at least one token")
        params.check(vocab)
        if len(resumed) > params.max_tokens:
            raise EngineRequestError(f"{len(resumed)} resumed tokens are more than max_tokens {params.max_tokens}")
        known = (*prompt, *resumed)
        wrong = next((token for token in (min(known), max(known)) if not 0 <= token < vocab), None)
        if wrong is not None:
            raise EngineRequestError(
                f"token ids must be from 0 to {vocab - 1}, not {wrong}; is it this model's tokenizer?"
            )
        asked = len(prompt) + params.max_tokens
        if asked > self.max_context:
            raise EngineRequestError(
                f"{len(prompt)} prompt tokens and {params.max_tokens} to generate are more than the "
                f"{self.max_context} that fit; shorten the prompt or lower max_tokens",
                code="context_length_exceeded",
            )

    def _limits(self) -> StepLimits:
        """What the next step may take: as much as its time allows, and a page of rows beside a row for all that run."""
        config = self._config
        if self._sizer is None:
            return StepLimits(config.max_batched_tokens, config.max_batched_keys)
        limits = self._sizer.limits()
        rows = max(limits.rows, self._scheduler.running + config.page_size)
        return replace(limits, rows=min(rows, config.max_batched_tokens))

    def _note(self, step: StepUnderWay, outputs: tuple[RequestOutput, ...]) -> StepStats:
        """What is remembered of a step that succeeded, and what is told."""
        now, chunks = self._clock(), step.plan.chunks
        seconds = now - max(step.began, self._pulse.ended_at or step.began)
        scheduled = tuple(chunk.request.id for chunk in chunks)
        self._pulse.end_step(scheduled, now)
        for output in outputs:
            if output.finish_reason or output.error:
                self._pulse.forget(output.request_id)
        decode_rows = sum(chunk.decodes for chunk in chunks)
        rows = sum(chunk.length for chunk in chunks)
        if self._sizer and rows > decode_rows:  # the others need no sizing, and many of them would be all it remembers
            self._sizer.observe(rows, sum(chunk.work for chunk in chunks), seconds)
        return StepStats(
            seconds=seconds,
            prefill_tokens=rows - decode_rows,
            decode_rows=decode_rows,
            sampled_tokens=sum(len(output.token_ids) for output in outputs),
            preemptions=step.plan.preempted,
            running=self._scheduler.running,
            waiting=self._scheduler.waiting,
            pages=self._num_pages,
            pages_used=self._num_pages - self._cache.available,
            pages_cached=self._cache.idle,
            scheduled=scheduled,
            cached_tokens=step.plan.cached_tokens,
        )
