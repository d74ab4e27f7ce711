"""Carries a plan out: batch, forward pass, one sample a row. Takes no decision; a bad row fails its own request."""

from collections.abc import Iterator
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from engine.batch import Batch, build_batch
from engine.logprobs import TokenLogprobs, explain
from engine.models.causal_lm import CausalLM
from engine.request import Request, RequestFailure
from engine.sampler import sample
from engine.scheduler import ScheduledChunk, SchedulePlan, StepResult

Rows: TypeAlias = NDArray[np.float32]
Row: TypeAlias = np.ndarray[tuple[int], np.dtype[np.float32]]

# Logits of prompt rows computed at once: 16 MiB, and as much again for the product that they are made of.
_PROMPT_LOGITS: Final = 1 << 22
_NOT_FINITE: Final = RequestFailure("engine_error", "The model's logits for this request are not finite numbers.")


class Runner:
    """One model, which samples on the host."""

    def __init__(self, model: CausalLM, page_size: int) -> None:
        self._model = model
        self._page_size = page_size

    def execute(self, plan: SchedulePlan) -> StepResult:
        """A token or a failure for every chunk that samples, and a failure for any other whose rows went wrong."""
        if not plan.chunks:
            return StepResult({}, {})
        batch = build_batch(plan.chunks, self._page_size)
        hidden = self._model.forward(batch)  # [rows, hidden]
        failures = _broken(batch.chunks, hidden)
        tokens: dict[str, int] = {}
        logprobs: dict[str, tuple[TokenLogprobs, ...]] = {}
        sampling = [chunk.request for chunk in batch.chunks if chunk.samples]
        if sampling:
            logits = self._model.logits(hidden[batch.sampled_rows])  # [sampling, vocab]
            for request, row in zip(sampling, logits, strict=True):
                if request.id not in failures:
                    outcome = _choose(row, request)
                    if isinstance(outcome, RequestFailure):
                        failures[request.id] = outcome
                    else:
                        tokens[request.id], logprobs[request.id] = outcome
        explained = self._explain_prompts(batch, hidden, failures)
        return StepResult(tokens, failures, logprobs, explained)

    def _explain_prompts(
        self, batch: Batch, hidden: Rows, failures: dict[str, RequestFailure]
    ) -> dict[str, list[TokenLogprobs]]:
        """Log probabilities of the prompt tokens behind this step's rows, where they are wanted."""
        explained: dict[str, list[TokenLogprobs]] = {}
        row = 0
        for chunk in batch.chunks:
            request, wanted = chunk.request, chunk.request.unexplained(chunk.start, chunk.end)
            if wanted and request.id not in failures:
                first = row - chunk.start
                logits = self._logits_of(hidden[first + wanted.start : first + wanted.stop])
                named = zip(logits, request.token_ids(wanted.start + 1, wanted.stop + 1), strict=True)
                alternatives = request.params.prompt_logprobs or 0
                entries: list[TokenLogprobs] = []
                for values, token_id in named:
                    if not np.isfinite(values).all():
                        failures[request.id] = _NOT_FINITE
                        break
                    entries.append(explain(values, token_id, alternatives))
                explained[request.id] = entries
            row += chunk.length
        return explained

    def _logits_of(self, hidden: Rows) -> Iterator[Row]:
        """One row of logits [vocab] after the other; never more than `_PROMPT_LOGITS` are kept."""
        at_once = max(1, _PROMPT_LOGITS // self._model.vocab_size)
        for start in range(0, len(hidden), at_once):
            yield from self._model.logits(hidden[start : start + at_once])


def _broken(chunks: tuple[ScheduledChunk, ...], hidden: Rows) -> dict[str, RequestFailure]:
    """Requests with a row that is not finite: the same input would give it again, so it is not to be retried."""
    finite: list[bool] = np.logical_and.reduce(np.isfinite(hidden), axis=1).tolist()  # [rows]
    if all(finite):
        return {}
    failures, row = {}, 0
    for chunk in chunks:
        if not all(finite[row : row + chunk.length]):
            message = "The model computed a value that is not a finite number for this request."
            failures[chunk.request.id] = RequestFailure("engine_error", message)
        row += chunk.length
    return failures


def _choose(row: Row, request: Request) -> tuple[int, tuple[TokenLogprobs, ...]] | RequestFailure:
    """The next token, with its log probabilities where they are wanted."""
    if not np.isfinite(row).all():
        return _NOT_FINITE
    try:
        token_id = sample(row, request)
    except Exception as error:  # noqa: BLE001 - ends as this request's failure; its neighbours' rows are their own
        return RequestFailure("engine_error", f"Sampling failed: {error!r}.")
    wanted = request.params.logprobs
    return token_id, () if wanted is None else (explain(row, token_id, wanted),)
