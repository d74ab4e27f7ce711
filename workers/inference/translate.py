"""The engine in the words of the pipe. Runs in the child; the one module here that imports the engine."""

import time

from engine import (
    Engine,
    EngineConfig,
    EngineConfigError,
    EngineRequestError,
    ModelFileError,
    RequestFailure,
    RequestOutput,
    Resume,
    SamplingParams,
)
from engine import StepStats as EngineStats
from engine import TokenLogprobs as EngineLogprobs
from engine.cores import available_cores
from engine.loaders import ModelDescription, describe
from engine.sizing import cache_size
from headrace.contract.errors import ErrorInfo
from headrace.contract.generation import TokenLogprobs
from headrace.settings import EngineSettings
from workers.inference.messages import AddRequest, CannotStart, ModelFacts, Output, Ready, Stepped, StepStats

MIB = 1 << 20


def engine_config(model_path: str, settings: EngineSettings) -> EngineConfig:
    """Raises EngineConfigError."""
    return EngineConfig(
        model=model_path,
        device=settings.device,
        numerics=settings.numerics,
        backend=settings.backend,
        kv_budget_bytes=settings.kv_budget_mb * MIB if settings.kv_budget_mb else None,
        prefix_cache=settings.prefix_cache,
        step_seconds=settings.step_seconds,
        max_num_seqs=settings.max_num_seqs,
        max_batched_tokens=settings.max_batched_tokens,
        max_context=settings.max_context,
        threads=settings.threads or _spare_cores(),
        cache_dir=settings.cache_dir,
    )


def _spare_cores() -> int:
    """All cores but one, which gateway, Redis and this worker's parent need: a step waits for its slowest thread, and
    that would be the one that shares its core with them."""
    return max(1, available_cores() - 1)


def sampling_params(request: AddRequest) -> SamplingParams:
    sampling = request.sampling
    return SamplingParams(
        max_tokens=request.max_tokens,
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        top_k=sampling.top_k,
        min_p=sampling.min_p,
        frequency_penalty=sampling.frequency_penalty,
        presence_penalty=sampling.presence_penalty,
        repetition_penalty=sampling.repetition_penalty,
        seed=sampling.seed,
        choice=request.choice,
        logprobs=request.logprobs,
        prompt_logprobs=request.prompt_logprobs,
    )


def output_of(output: RequestOutput) -> Output:
    error = None if output.error is None else failure_info(output.error)
    return Output(
        request_id=output.request_id,
        offset=output.offset,
        token_ids=output.token_ids,
        finish_reason=output.finish_reason,
        error=error,
        logprobs=tuple(map(logprobs_of, output.logprobs)),
        prompt_logprobs=tuple(None if entry is None else logprobs_of(entry) for entry in output.prompt_logprobs),
        cached_tokens=output.cached_tokens,
    )


def logprobs_of(entry: EngineLogprobs) -> TokenLogprobs:
    return TokenLogprobs(entry.logprob, entry.top)


def failure_info(failure: RequestFailure) -> ErrorInfo:
    return ErrorInfo(failure.code, failure.message, failure.retryable)


def refusal_of(request: AddRequest, error: EngineRequestError) -> Output:
    info = ErrorInfo(error.code, error.message, error.retryable)
    return Output(request.request_id, len(request.token_ids), (), error=info)


def stats_of(stats: EngineStats) -> StepStats:
    return StepStats(
        seconds=stats.seconds,
        decode_rows=stats.decode_rows,
        prefill_tokens=stats.prefill_tokens,
        decoded_tokens=stats.sampled_tokens,
        running=stats.running,
        waiting=stats.waiting,
        preemptions=stats.preemptions,
        kv_pages_used=stats.pages_used,
        kv_pages=stats.pages,
        scheduled=stats.scheduled,
        cached_tokens=stats.cached_tokens,
    )


class EngineRunner:
    """One engine and the names of what it was given."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._open: set[str] = set()

    def ready(self) -> Ready:
        facts = facts_of(self._engine.description, self._engine.max_context)
        return Ready(facts, self._engine.budget().total_tokens, self._engine.digest, started_s=0.0)

    def add(self, request: AddRequest) -> Output | None:
        resume = Resume(request.token_ids) if request.token_ids else None
        deadline = None if request.deadline_s is None else time.monotonic() + request.deadline_s
        try:
            self._engine.add_request(
                request.request_id,
                request.prompt_ids,
                sampling_params(request),
                resume,
                priority=request.priority,
                deadline=deadline,
            )
        except EngineRequestError as error:
            return refusal_of(request, error)
        self._open.add(request.request_id)
        return None

    def abort(self, request_ids: tuple[str, ...] | None) -> None:
        for request_id in tuple(self._open) if request_ids is None else request_ids:
            self._engine.abort(request_id)
            self._open.discard(request_id)

    def idle(self) -> StepStats | None:
        last, budget = self._engine.stats, self._engine.budget()
        if last is None:
            return None
        held = budget.total_tokens - budget.free_tokens
        return StepStats(kv_pages=last.pages, kv_pages_used=held * last.pages // budget.total_tokens)

    def busy(self) -> bool:
        return self._engine.has_unfinished

    def check_integrity(self) -> None:
        self._engine.check_integrity()

    def step(self) -> Stepped:
        result = self._engine.step()
        ended = {output.request_id for output in result.outputs if output.finish_reason or output.error}
        self._open -= ended
        return Stepped(tuple(output_of(output) for output in result.outputs), stats_of(result.stats))


def facts_of(description: ModelDescription, max_context: int) -> ModelFacts:
    return ModelFacts(
        revision=description.revision,
        tokenizer_json=description.tokenizer_json,
        chat_template=description.chat_template,
        context_length=max_context,
        vocab_size=description.vocab_size,
        eos_ids=description.eos_ids,
        bos_id=description.bos_id,
        name=description.name,
        architecture=description.architecture,
        parameters=description.parameter_count,
        quantization=description.quantization,
        licence=description.licence,
    )


def describe_model(model_path: str, settings: EngineSettings) -> Ready:
    """What a loaded engine would say, from the file alone; the digest stays empty. Raises CannotStart as loading would
    for a damaged file."""
    try:
        description = describe(model_path)
        cache = cache_size(engine_config(model_path, settings), description.shape)
    except (ModelFileError, EngineConfigError) as error:
        raise CannotStart(error.message) from error
    return Ready(facts_of(description, cache.max_context), cache.total_tokens, digest="", started_s=0.0)


def load_engine(model_path: str, settings: EngineSettings) -> EngineRunner:
    """Load the weights. Raises CannotStart for what a second try would not mend."""
    try:
        return EngineRunner(Engine(engine_config(model_path, settings)))
    except (ModelFileError, EngineConfigError) as error:
        raise CannotStart(error.message) from error
