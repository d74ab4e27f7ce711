"""One engine with the same neighbours each time, whose model and sampler can be made to fail. Knows no faults."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
import pytest
from numpy.typing import NDArray

from engine import Engine, EngineRequestError, RequestOutput, Resume, SamplingParams
from engine.batch import Batch
from engine.models.causal_lm import CausalLM
from engine.request import Request
from engine.runner import Runner
from engine.sampler import NO_MASKS, Masks, Rows, Sampled, Sampler

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
