"""The engine: token ids in, token ids out, one step at a time; knows no text, no jobs and no queue."""

import time
from collections.abc import Callable, Sequence

import torch

from engine.batch import PageLayout
from engine.block_pool import BlockPool
from engine.config import EngineConfig
from engine.digest import numerics_digest
from engine.errors import EngineConfigError, EngineError, EngineRequestError
from engine.loaders.description import ModelDescription, describe_open
from engine.loaders.gguf import GGUFFile
from engine.loaders.weights import GGUFCheckpoint
from engine.models.causal_lm import load_model
from engine.numerics import choose_numerics
from engine.outputs import Budget, Completion, Health, RequestOutput, StepOutput, StepStats
from engine.request import Request, Resume, Snapshot
from engine.runner import Runner
from engine.sampling_params import SamplingParams, check_ids, check_params
from engine.scheduler import SchedulePlan, Scheduler

Clock = Callable[[], float]


class Engine:
    """One model, one scheduler, one runner. Owned by one thread; nothing in here locks.

    Raises ModelFileError for the file, EngineConfigError for a knob or a device.
    """

    def __init__(self, config: EngineConfig, clock: Clock = time.monotonic) -> None:
        self.config = config
        self._clock = clock
        self.device = choose_device(config.device)
        if config.threads is not None:
            torch.set_num_threads(config.threads)
        numerics = choose_numerics(config.numerics, self.device)
        with GGUFFile(config.model) as file:
            self.description: ModelDescription = describe_open(file)
            shape = self.description.shape
            self.max_context = min(config.max_context or shape.context_length, shape.context_length)
            pages = config.pages_for(shape.kv_bytes_per_token(numerics.name))
            layout = PageLayout(pages + 1, config.page_size)  # and the null page
            model = load_model(
                self.description.architecture,
                GGUFCheckpoint(file, shape),
                shape,
                numerics,
                layout,
                self.max_context,
                self.device,
            )
        self.digest = numerics_digest(self.description.revision, numerics, self.device)
        self.scheduler = Scheduler(BlockPool(pages), config.page_size, config.max_batched_tokens, config.max_num_seqs)
        self.runner = Runner(model, config.page_size, self.device)
        self.stats = StepStats(pages=pages)
        self._pages = pages
        self._arrivals = 0
        self._last_step_at: float | None = None
        self._draining = False

    def add_request(
        self,
        request_id: str,
        prompt_ids: Sequence[int],
        params: SamplingParams,
        resume: Resume | None = None,
        *,
        priority: int = 0,
    ) -> None:
        """Takes a request; lower `priority` runs first. After `resume` the next token has offset len(resume.token_ids);
        if those ids are a whole answer already, the next step says so with no tokens.

        Raises EngineRequestError (`invalid_request`, `context_length_exceeded`, `draining`); then nothing was taken.
        """
        if self._draining:
            raise EngineRequestError("the engine is draining", code="draining", retryable=True)
        if request_id in self.scheduler:
            raise EngineRequestError(f"request {request_id!r} is already here")
        prompt, resumed = tuple(prompt_ids), tuple(resume.token_ids) if resume else ()
        self._check(prompt, resumed, params)
        model_ends = () if params.ignore_eos else self.description.eos_ids
        self._arrivals += 1
        self.scheduler.add(
            Request(
                request_id=request_id,
                prompt_ids=prompt,
                params=params,
                ends=frozenset((*params.stop_token_ids, *model_ends)),
                order=(priority, self._arrivals),
                output_ids=list(resumed),
                progressed_at=self._clock(),
            )
        )

    def step(self) -> StepOutput:
        """Runs one step and returns what it brought. Raises EngineStepError when the forward pass failed."""
        began = self._clock()
        plan = self.scheduler.schedule()
        result = self.runner.execute(plan)
        outputs = self.scheduler.update(plan, result, self._clock())
        return self._observed(plan, outputs, began)

    def abort(self, request_id: str) -> bool:
        """Forgets a request and frees its pages at once. False when it is not here."""
        if request_id not in self.scheduler:
            return False
        self.scheduler.remove(request_id)
        return True

    def snapshot(self, request_id: str) -> Snapshot:
        """What another engine needs to go on with a request. Raises EngineRequestError when it is not here."""
        if request_id not in self.scheduler:
            raise EngineRequestError(f"request {request_id!r} is not here")
        return self.scheduler.get(request_id).snapshot()

    def drain(self) -> tuple[Snapshot, ...]:
        """Takes nothing more and gives everything unfinished back, in order of arrival. All pages are free then."""
        self._draining = True
        snapshots = tuple(request.snapshot() for request in self.scheduler.unfinished())
        for snapshot in snapshots:
            self.scheduler.remove(snapshot.request_id)
        self.scheduler.check_integrity()
        return snapshots

    def budget(self) -> Budget:
        """Room in tokens and requests."""
        return self.scheduler.budget()

    def would_fit(self, n_tokens: int) -> bool:
        """Whether a request with `n_tokens` known tokens (prompt and resumed output) would start at the next step."""
        return not self._draining and self.scheduler.would_fit(n_tokens)

    @property
    def has_unfinished(self) -> bool:
        return self.scheduler.has_unfinished

    def health(self) -> Health:
        """Age of the last step, who runs and waits, and who got stuck."""
        now = self._clock()
        limit = self.config.stuck_after_s
        stuck = tuple(request.request_id for request in self.scheduler.running if now - request.progressed_at > limit)
        age = None if self._last_step_at is None else now - self._last_step_at
        idle = not self.has_unfinished
        return Health(
            ok=not stuck and (idle or age is None or age <= limit),
            last_step_age_s=age,
            running=len(self.scheduler.running),
            waiting=len(self.scheduler.waiting),
            stuck=stuck,
        )

    def generate(
        self, prompts: Sequence[Sequence[int]], params: SamplingParams | Sequence[SamplingParams]
    ) -> list[Completion]:
        """Answers a list of prompts through the same loop. Raises EngineRequestError for the first one refused, and
        EngineError while requests of `add_request` are unfinished, whose tokens would get lost here."""
        if self.has_unfinished:
            raise EngineError("generate needs an idle engine; drive add_request and step instead")
        each = [params] * len(prompts) if isinstance(params, SamplingParams) else list(params)
        if len(each) != len(prompts):
            raise EngineRequestError(f"{len(prompts)} prompts came with {len(each)} sampling parameters")
        ids = [f"generate-{index}" for index in range(len(prompts))]
        try:
            for request_id, prompt, one in zip(ids, prompts, each, strict=True):
                self.add_request(request_id, prompt, one)
        except EngineRequestError:
            for request_id in ids:
                self.abort(request_id)
            raise
        return self._collect(ids)

    def _collect(self, ids: Sequence[str]) -> list[Completion]:
        tokens: dict[str, list[int]] = {request_id: [] for request_id in ids}
        last: dict[str, RequestOutput] = {}
        while self.has_unfinished:
            for output in self.step().outputs:
                tokens[output.request_id] += output.token_ids
                last[output.request_id] = output
        return [Completion(tuple(tokens[key]), last[key].finish_reason, last[key].error) for key in ids]

    def _check(self, prompt: tuple[int, ...], resumed: tuple[int, ...], params: SamplingParams) -> None:
        vocab_size = self.description.vocab_size
        if not prompt:
            raise EngineRequestError("the prompt is empty")
        check_params(params, vocab_size)
        check_ids("prompt_ids", prompt, vocab_size)
        check_ids("resume.token_ids", resumed, vocab_size)
        if len(resumed) > params.max_tokens:
            raise EngineRequestError(f"{len(resumed)} resumed tokens are more than max_tokens {params.max_tokens}")
        total = len(prompt) + params.max_tokens
        if total > self.max_context or not self.scheduler.fits_alone(total):
            room = min(self.max_context, self.budget().total_tokens)
            raise EngineRequestError(
                f"{len(prompt)} prompt tokens and {params.max_tokens} to generate make {total}; the limit is {room}",
                code="context_length_exceeded",
            )

    def _observed(self, plan: SchedulePlan, outputs: tuple[RequestOutput, ...], began: float) -> StepOutput:
        now = self._clock()
        self._last_step_at = now
        decode_rows = sum(chunk.decodes for chunk in plan.chunks)
        self.stats = StepStats(
            seconds=now - began,
            prefill_tokens=sum(chunk.length for chunk in plan.chunks) - decode_rows,
            decode_rows=decode_rows,
            sampled_tokens=sum(len(output.token_ids) for output in outputs),
            running=len(self.scheduler.running),
            waiting=len(self.scheduler.waiting),
            pages=self._pages,
            pages_used=self._pages - self.scheduler.free_pages,
            preemptions=len(plan.preempted),
            scheduled=tuple(chunk.request.request_id for chunk in plan.chunks),
        )
        if not self.has_unfinished:
            self.scheduler.check_integrity()
        return StepOutput(outputs, self.stats)


def choose_device(name: str) -> torch.device:
    """Where "auto" means a GPU if torch sees one. Raises EngineConfigError (`device_unavailable`)."""
    if name not in ("auto", "cpu", "cuda"):
        raise EngineConfigError(f"unknown device {name!r}; known are 'auto', 'cpu' and 'cuda'")
    has_cuda = torch.cuda.is_available()
    if name == "cuda" and not has_cuda:
        raise EngineConfigError("device 'cuda' was asked for, and torch sees none", code="device_unavailable")
    return torch.device("cuda" if name != "cpu" and has_cuda else "cpu")
