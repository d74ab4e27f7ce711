"""Carries a plan out: batch, forward pass, one sample a row. Takes no decision; a bad row fails its own request."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import compress
from typing import Final, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from engine.batch import Batch, build_batch
from engine.logprobs import TokenLogprobs
from engine.models.causal_lm import CausalLM, ChoosesBest
from engine.outcome import RequestFailure
from engine.request import Request
from engine.sampler import NOT_FINITE, Rows, Sampled, Sampler, gone_wrong
from engine.step_plan import ScheduledChunk, SchedulePlan, StepResult

# Logits of prompt rows computed at once: 16 MiB, and as much again for the product that they are made of.
_PROMPT_LOGITS: Final = 1 << 22
_BROKEN: Final = RequestFailure(
    "engine_error",
    "The model computed a value that is not a finite number for this request. Asking again will not help; if other "
    "prompts fail, too, fetch the model's file anew.",
)
_NO_MEMORY: Final = RequestFailure(
    "engine_error", "There was no memory left to compute this request, even by itself.", retryable=True
)


class LaunchedStep(Protocol):
    """A step that is under way, or done."""

    def result(self) -> StepResult:
        """Waits for it: a token or a failure for every chunk that samples, and a failure for any other whose rows went
        wrong. To be asked once."""
        ...


@runtime_checkable
class StepRunner(Protocol):
    """Whoever carries plans out, one wholly after the other and in the order of their launches: what a step writes is
    there for the next. So a page that was freed may be given away while a step that writes to it is under way.

    `runs_ahead`: a step may be launched while the one before it is under way, with rows of tokens that only that one
    knows. Then a result is taken before the launch after next.
    """

    @property
    def runs_ahead(self) -> bool: ...

    def launch(self, plan: SchedulePlan) -> LaunchedStep:
        """Plans have at least one chunk."""
        ...


@dataclass(frozen=True, slots=True)
class DoneStep:
    """One that was computed when it was launched."""

    outcome: StepResult

    def result(self) -> StepResult:
        return self.outcome


def runner_for(model: CausalLM, page_size: int, sampler: Callable[[], Sampler]) -> StepRunner:
    """A model that chooses its tokens itself, on its device, is its own runner."""
    return model if isinstance(model, StepRunner) else Runner(model, page_size, sampler())


class Runner:
    """One model, and who samples from its logits on the host: the next step needs to know what it chose."""

    runs_ahead = False

    def __init__(self, model: CausalLM, page_size: int, sampler: Sampler) -> None:
        self._model = model
        self._page_size = page_size
        self._sampler = sampler

    def launch(self, plan: SchedulePlan) -> DoneStep:
        """Computes it here and now. Where memory runs out, each chunk is computed by itself: that takes least and gives
        the same tokens, and what had been written of it is written again."""
        try:
            return DoneStep(self._compute(plan.chunks))
        except MemoryError:
            return DoneStep(self._compute_alone(plan.chunks))

    def _compute_alone(self, chunks: Sequence[ScheduledChunk]) -> StepResult:
        tokens: dict[str, int] = {}
        failures: dict[str, RequestFailure] = {}
        logprobs: dict[str, tuple[TokenLogprobs, ...]] = {}
        explained: dict[str, Sequence[TokenLogprobs]] = {}
        for chunk in chunks:
            try:
                own = self._compute((chunk,))
            except MemoryError:
                failures[chunk.request.id] = _NO_MEMORY
                continue
            tokens |= own.tokens
            failures |= own.failures
            logprobs |= own.logprobs
            explained |= own.explained
        return StepResult(tokens, failures, logprobs, explained)

    def _compute(self, chunks: Sequence[ScheduledChunk]) -> StepResult:
        batch = build_batch(chunks, self._page_size)
        hidden = self._model.forward(batch)  # [rows, hidden]
        failures = _broken(batch.chunks, hidden)
        sampled = self._sample(batch, hidden, failures)
        failures |= sampled.failures
        explained = self.explain_prompts(batch, hidden, failures)
        return StepResult(sampled.tokens, failures, sampled.logprobs, explained)

    def _sample(self, batch: Batch, hidden: Rows, failures: dict[str, RequestFailure]) -> Sampled:
        """One token for each chunk that samples and has not failed."""
        requests = [chunk.request for chunk in batch.chunks if chunk.samples]
        rows = batch.sampled_rows
        if failures:
            sound = [request.id not in failures for request in requests]
            requests, rows = list(compress(requests, sound)), rows[sound]
        if not requests:
            return Sampled()
        if isinstance(self._model, ChoosesBest) and all(request.takes_best for request in requests):
            return _chosen(requests, self._model.best_tokens(hidden[rows]))
        logits = self._model.logits(hidden[rows])
        try:
            return self._sampler.sample(logits, requests)
        except Exception:  # noqa: BLE001 - somebody's row did it: the same rows again, each by itself, tell whose
            return self._sample_alone(logits, requests)

    def _sample_alone(self, logits: Rows, requests: Sequence[Request]) -> Sampled:
        """The same tokens one by one, for a batch whose sampling broke off: who breaks it again fails alone."""
        sampled = Sampled()
        for index, request in enumerate(requests):
            try:
                own = self._sampler.sample(logits[index : index + 1], (request,))
            except Exception as error:  # noqa: BLE001 - ends as this request's failure; its neighbours' rows are their own
                sampled.failures[request.id] = gone_wrong(error)
                continue
            sampled.tokens |= own.tokens
            sampled.failures |= own.failures
            sampled.logprobs |= own.logprobs
        return sampled

    def explain_prompts(
        self, batch: Batch, hidden: Rows, failures: dict[str, RequestFailure]
    ) -> dict[str, list[TokenLogprobs]]:
        """Log probabilities of the prompt tokens behind this step's rows, where they are wanted."""
        explained: dict[str, list[TokenLogprobs]] = {}
        row = 0
        for chunk in batch.chunks:
            request = chunk.request
            wanted = request.unexplained(chunk.start, chunk.end)
            if wanted and request.id not in failures:
                first = row - chunk.start
                entries = self._explain(request, wanted, hidden[first + wanted.start : first + wanted.stop])
                if isinstance(entries, RequestFailure):
                    failures[request.id] = entries
                else:
                    explained[request.id] = entries
            row += chunk.length
        return explained

    def _explain(self, request: Request, wanted: range, hidden: Rows) -> list[TokenLogprobs] | RequestFailure:
        """For each position of `wanted`, with its row of `hidden`, the prompt token behind it. Never more than
        `_PROMPT_LOGITS` are kept."""
        at_once = max(1, _PROMPT_LOGITS // self._model.vocab_size)
        alternatives = request.params.prompt_logprobs or 0
        entries: list[TokenLogprobs] = []
        for start in range(0, len(wanted), at_once):
            positions = wanted[start : start + at_once]
            logits = self._model.logits(hidden[start : start + at_once])
            token_ids = request.token_ids(positions.start + 1, positions.stop + 1)
            try:
                some = self._sampler.explain(logits, token_ids, alternatives)
            except Exception as error:  # noqa: BLE001 - ends as this request's failure, as above
                return gone_wrong(error)
            if some is None:
                return NOT_FINITE
            entries += some
        return entries


def _chosen(requests: Sequence[Request], tokens: NDArray[np.int64]) -> Sampled:
    """What the sampler would have said of requests that want the best token and no more."""
    sampled = Sampled()
    for request, token in zip(requests, tokens.tolist(), strict=True):
        if token < 0:
            sampled.failures[request.id] = NOT_FINITE
        else:
            sampled.tokens[request.id] = token
    return sampled


def _broken(chunks: tuple[ScheduledChunk, ...], hidden: Rows) -> dict[str, RequestFailure]:
    """Requests with a row that is not finite: the same input would give it again, so it is not to be retried."""
    finite = np.isfinite(hidden)  # [rows, hidden]
    return {} if finite.all() else broken(chunks, np.logical_and.reduce(finite, axis=1))


def broken(chunks: tuple[ScheduledChunk, ...], sound: NDArray[np.bool_]) -> dict[str, RequestFailure]:
    """The same, of rows that are known to be finite or not.  # [rows]"""
    failures, row = {}, 0
    for chunk in chunks:
        if not sound[row : row + chunk.length].all():
            failures[chunk.request.id] = _BROKEN
        row += chunk.length
    return failures
