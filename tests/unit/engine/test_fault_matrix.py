"""Everything that can go wrong with one request, beside the same neighbours each time: it ends with its code, they get
the tokens and log probabilities of their solo runs, all pages return, and the engine goes on."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from engine import Completion, Engine, EngineConfig, EngineRequestError, RequestOutput, Resume, SamplingParams
from engine.batch import Batch
from engine.models.causal_lm import CausalLM
from engine.request import Request
from engine.runner import Runner
from engine.sampler import NO_MASKS, Masks, Rows, Sampled, Sampler
from engine.torch_backend.decoder import Decoder
from engine.torch_backend.layers.attention import ExactAttention
from tests.unit.engine.cpu_backend.drawn_models import why_not as not_here

PAGES = {"torch": 8, "cpu": 16}  # tokens of one
BAD = "bad"
SHARED = tuple(range(40, 72))  # whole pages, which the bad request has in common with a neighbour
GREEDY = SamplingParams(max_tokens=10, temperature=0.0, ignore_eos=True)
SAMPLED = SamplingParams(max_tokens=14, seed=5, frequency_penalty=0.5, repetition_penalty=1.2, ignore_eos=True)
NEIGHBOURS: dict[str, tuple[tuple[int, ...], SamplingParams]] = {
    "before": (SHARED[:20], replace(SAMPLED, logprobs=2)),
    "alike": ((*SHARED, 7, 8, 9), GREEDY),
    "long": (tuple(range(100, 190)), replace(GREEDY, max_tokens=3, prompt_logprobs=1)),
    "after": (SHARED[::-1], replace(SAMPLED, seed=6, temperature=1.3, top_p=0.9)),
}
Outcome: TypeAlias = str  # the code of a refusal or of a failure, or a finish reason, or "aborted"
Fault: TypeAlias = Callable[["Stage"], Outcome]


@dataclass(slots=True)
class FaultyModel:
    """The model, with something that happens to a batch behind it."""

    inner: CausalLM
    happens: Callable[[Batch, NDArray[np.float32]], None]

    @property
    def vocab_size(self) -> int:
        return self.inner.vocab_size

    def forward(self, batch: Batch) -> NDArray[np.float32]:
        hidden = self.inner.forward(batch).copy()
        self.happens(batch, hidden)
        return hidden

    def logits(self, hidden: NDArray[np.float32]) -> NDArray[np.float32]:
        return self.inner.logits(hidden)


@dataclass(slots=True)
class FaultySampler:
    """The sampler, which breaks off at the bad request's row and at prompts that want just as many alternatives."""

    inner: Sampler
    error: Exception
    at_output: int
    at_alternatives: int = -1

    def sample(self, logits: Rows, requests: Sequence[Request], masks: Masks = NO_MASKS) -> Sampled:
        if any(request.id == BAD and request.output_length == self.at_output for request in requests):
            raise self.error
        return self.inner.sample(logits, requests, masks)

    def explain(self, logits: Rows, token_ids: Sequence[int], alternatives: int):  # type: ignore[no-untyped-def]
        if alternatives == self.at_alternatives:
            raise self.error
        return self.inner.explain(logits, token_ids, alternatives)


class Stage:
    """One engine, the neighbours on it, and what all were shown."""

    def __init__(self, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
        self.engine, self.monkeypatch = engine, monkeypatch
        self.shown: dict[str, list[RequestOutput]] = {}

    def add(self, name: str, prompt: Sequence[int], params: SamplingParams, resume: Resume | None = None) -> None:
        self.engine.add_request(name, prompt, params, resume)
        self.shown[name] = []

    def add_neighbours(self, *names: str) -> None:
        for name in names:
            self.add(name, *NEIGHBOURS[name])

    def step(self) -> None:
        for output in self.engine.step().outputs:
            self.shown[output.request_id].append(output)
        self.engine.check_integrity()

    def until(self, name: str, tokens: int) -> None:
        """Step until so many tokens have been shown."""
        while sum(len(output.token_ids) for output in self.shown[name]) < tokens:
            self.step()

    def end_of(self, name: str) -> Outcome:
        last = self.shown[name][-1]
        return last.error.code if last.error else str(last.finish_reason)

    def break_model(self, happens: Callable[[Batch, NDArray[np.float32]], None]) -> None:
        model = FaultyModel(self.engine._loaded.model, happens)
        self.monkeypatch.setattr(self.engine._runner, "_model", model)

    def break_sampler(self, error: Exception, at_output: int = 0, at_alternatives: int = -1) -> None:
        runner = self.engine._runner
        assert isinstance(runner, Runner)
        sampler = FaultySampler(runner._sampler, error, at_output, at_alternatives)
        self.monkeypatch.setattr(runner, "_sampler", sampler)

    def refusal(self, *request: object) -> Outcome:
        with pytest.raises(EngineRequestError) as caught:
            self.engine.add_request(*request)  # type: ignore[arg-type]
        self.engine.check_integrity()
        return caught.value.code

    def finish(self) -> None:
        while self.engine.has_unfinished:
            self.step()


def not_finite(output: int) -> Fault:
    """A row of the bad request is not a number once it has so much output."""

    def happens(batch: Batch, hidden: NDArray[np.float32]) -> None:
        for index, chunk in enumerate(batch.chunks):
            if chunk.request.id == BAD and chunk.request.output_length == output:
                hidden[np.flatnonzero(batch.row_chunk == index)[-1]] = np.nan

    def fault(stage: Stage) -> Outcome:
        stage.break_model(happens)
        stage.add(BAD, SHARED, GREEDY)
        return "engine_error"

    return fault


def sampling_breaks_off(error: Exception, output: int) -> Fault:
    def fault(stage: Stage) -> Outcome:
        stage.break_sampler(error, at_output=output)
        stage.add(BAD, SHARED, SAMPLED)
        return "engine_error"

    return fault


def no_memory_for(least: int, batches: Callable[[Batch], bool]) -> Fault:
    """The forward pass finds no memory for such batches: those of the bad request fail by themselves, too."""

    def happens(batch: Batch, hidden: NDArray[np.float32]) -> None:
        if len(batch.chunks) >= least and batches(batch):
            raise MemoryError

    def fault(stage: Stage) -> Outcome:
        stage.break_model(happens)
        stage.add(BAD, SHARED, GREEDY)
        return "engine_error" if least == 1 else "length"

    return fault


def explaining_breaks_off(stage: Stage) -> Outcome:
    stage.break_sampler(MemoryError(), at_output=99, at_alternatives=3)
    stage.add(BAD, SHARED, replace(GREEDY, prompt_logprobs=3))
    return "engine_error"


def over_long(stage: Stage) -> Outcome:
    assert stage.refusal(BAD, (1,) * (stage.engine.max_context - 9), GREEDY) == "context_length_exceeded"
    return "refused"


def duplicate(stage: Stage) -> Outcome:
    assert stage.refusal("before", SHARED, GREEDY) == "invalid_request"
    return "refused"


def nothing_left_to_say(stage: Stage) -> Outcome:
    stage.add(BAD, SHARED, GREEDY, Resume(tuple(range(10))))
    return "length"


def nothing_asked(stage: Stage) -> Outcome:
    stage.add(BAD, SHARED, replace(GREEDY, max_tokens=0, prompt_logprobs=0))
    return "length"


def known_whole(stage: Stage) -> Outcome:
    """Every page of its prompt is in the cache: the last token is computed all the same."""
    stage.engine.add_request("teacher", SHARED, replace(GREEDY, max_tokens=1))
    stage.shown["teacher"] = []
    stage.until("teacher", 1)
    stage.add(BAD, SHARED, GREEDY)
    return "length"


def aborted_while_waiting(stage: Stage) -> Outcome:
    stage.add(BAD, SHARED, GREEDY)
    assert stage.engine.abort(BAD)
    assert not stage.engine.abort(BAD)
    return "aborted"


def aborted_after(output: int) -> Fault:
    def fault(stage: Stage) -> Outcome:
        stage.add(BAD, SHARED, GREEDY)
        stage.until(BAD, output)
        assert stage.engine.abort(BAD)
        return "aborted"

    return fault


def aborted_in_its_prompt(stage: Stage) -> Outcome:
    stage.add(BAD, range(200), GREEDY)
    request = stage.engine._scheduler.get(BAD)
    assert request is not None
    while not request.computed:
        stage.step()
    assert request.computed < 200
    assert stage.engine.abort(BAD)
    return "aborted"


def aborted_within_a_step(stage: Stage) -> Outcome:
    """By what runs while the step is computed, as a signal's handler might; the name is taken again at once."""
    again = replace(GREEDY, max_tokens=2)

    def happens(batch: Batch, hidden: NDArray[np.float32]) -> None:
        if any(chunk.request.id == BAD and chunk.request.params is GREEDY for chunk in batch.chunks):
            assert stage.engine.abort(BAD)
            stage.add(BAD, SHARED[:3], again)

    stage.break_model(happens)
    stage.add(BAD, SHARED, GREEDY)
    stage.until(BAD, 2)
    return "length"


def an_abort_storm(stage: Stage) -> Outcome:
    """Dozens come and go in every state, some of them while outputs are being handed out."""
    for number in range(40):
        stage.add(f"{BAD} {number}", SHARED[: 1 + number % 32], GREEDY)
        if number % 3 == 0:
            for output in stage.engine.step().outputs:
                stage.shown[output.request_id].append(output)
                if output.request_id.startswith(BAD):
                    stage.engine.abort(output.request_id)
                    stage.engine.check_integrity()
        if number % 5 == 0:
            stage.engine.abort(f"{BAD} {number // 2}")
    for number in range(40):
        stage.engine.abort(f"{BAD} {number}")
    return "aborted"


FAULTS: dict[str, Fault] = {
    "a row of the prompt is not finite": not_finite(0),
    "a row of the output is not finite": not_finite(3),
    "allocation fails wherever it is": no_memory_for(1, lambda batch: any(c.request.id == BAD for c in batch.chunks)),
    "allocation fails for more than one": no_memory_for(2, lambda batch: True),
    "allocation fails in sampling": sampling_breaks_off(MemoryError(), 0),
    "sampling raises at the first token": sampling_breaks_off(RuntimeError("no"), 0),
    "sampling raises later": sampling_breaks_off(KeyError("no"), 4),
    "explaining the prompt fails": explaining_breaks_off,
    "a prompt too long": over_long,
    "a name in use": duplicate,
    "an end without a token": nothing_left_to_say,
    "no token asked for": nothing_asked,
    "all pages known": known_whole,
    "aborted while waiting": aborted_while_waiting,
    "aborted in its prompt": aborted_in_its_prompt,
    "aborted at its first token": aborted_after(1),
    "aborted later": aborted_after(5),
    "aborted within a step": aborted_within_a_step,
    "an abort storm": an_abort_storm,
}


def engine_of(tiny: Path, backend: str, tokens: int, **knobs: object) -> Engine:
    """Over a cache of at least so many tokens."""
    size = PAGES[backend]
    config = EngineConfig(
        tiny,
        device="cpu",
        backend=backend,
        page_size=size,
        num_pages=-(-tokens // size),
        max_batched_tokens=24,
        step_seconds=None,
        threads=1,
    )
    return Engine(replace(config, **knobs))  # type: ignore[arg-type]


@pytest.fixture(scope="module", params=PAGES)
def backend(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    if name == "cpu" and not_here():
        pytest.skip("the fused backend does not run here")
    return name


@pytest.fixture(scope="module")
def alone(tiny: Path, backend: str) -> dict[str, Completion]:
    """What each neighbour gets by itself, without a cache."""
    engine = engine_of(tiny, backend, 512, prefix_cache=False)
    return {name: engine.generate([prompt], params)[0] for name, (prompt, params) in NEIGHBOURS.items()}


@pytest.fixture(scope="module", params=["roomy", "tight", "no cache"])
def engine(tiny: Path, backend: str, request: pytest.FixtureRequest) -> Engine:
    """Shared by all faults, which is a part of the test: each is left to the next as the last one left it."""
    return engine_of(tiny, backend, 512 if request.param == "roomy" else 216, prefix_cache=request.param != "no cache")


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS.keys())
def test_it_ends_with_its_code_and_nobody_else_notices(
    engine: Engine, alone: dict[str, Completion], fault: Fault, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = Stage(engine, monkeypatch)
    stage.add_neighbours("before", "alike")
    stage.step()
    stage.step()
    outcome = fault(stage)
    stage.add_neighbours("long", "after")
    stage.finish()
    if outcome in ("aborted", "refused"):
        assert all(output.error is None for outputs in stage.shown.values() for output in outputs)
    else:
        assert stage.end_of(BAD) == outcome
    for name, expected in alone.items():
        outputs = stage.shown[name]
        assert tuple(token for output in outputs for token in output.token_ids) == expected.token_ids, name
        assert tuple(entry for output in outputs for entry in output.logprobs) == expected.logprobs, name
        assert outputs[0].prompt_logprobs == expected.prompt_logprobs, name
        assert stage.end_of(name) == expected.finish_reason
    assert engine.budget().free_tokens == engine.budget().total_tokens


@pytest.mark.parametrize("scales", ["key_scales", "value_scales"])
def test_a_page_that_went_bad_fails_those_who_read_it_and_is_not_kept(
    tiny: Path, backend: str, alone: dict[str, Completion], scales: str
) -> None:
    """As if memory had flipped a bit: the next request with that beginning computes it anew, and is well."""
    engine = engine_of(tiny, backend, 512)
    prompt, params = NEIGHBOURS["alike"]
    assert engine.generate([prompt], params)[0] == alone["alike"]
    kept = list(engine._cache._idle)
    spoil(engine, kept[-1], scales)  # the first page: it is let go last
    with pytest.raises(EngineRequestError, match="finite"):
        engine.generate([prompt], params)
    assert not engine._cache._idle
    assert engine.generate([prompt], params)[0] == alone["alike"]


def spoil(engine: Engine, page: int, scales: str) -> None:
    """The scales of a page's keys or values in the first layer are no numbers any more; on torch they lie together."""
    model = engine._loaded.model
    if isinstance(model, Decoder):
        attention = model._layers[0].attention
        assert isinstance(attention, ExactAttention)
        with torch.inference_mode():
            attention._scales[page] = float("nan")
    else:
        model._arrays[scales][0, page] = np.nan  # type: ignore[attr-defined]
