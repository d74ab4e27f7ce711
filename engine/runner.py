"""Executes a plan: builds the batch, runs the model, samples; takes no decision and owns no request."""

from functools import partial

import torch
from torch import Tensor

from engine.batch import Batch, build_batch
from engine.errors import EngineStepError
from engine.guard import NOT_FINITE, contain
from engine.models.causal_lm import CausalLM
from engine.outputs import RequestFailure
from engine.sampler import sample
from engine.scheduler import SchedulePlan, StepResult


class Runner:
    """One model on one device."""

    def __init__(self, model: CausalLM, page_size: int, device: torch.device) -> None:
        self._model = model
        self._page_size = page_size
        self._device = device

    @torch.inference_mode()
    def execute(self, plan: SchedulePlan) -> StepResult:
        """Runs all chunks of a plan in one pass. Raises EngineStepError when the pass itself fails."""
        if not plan.chunks:
            return StepResult({}, {})
        try:
            batch = build_batch(plan.chunks, self._page_size, self._device)
            hidden = self._model.forward(batch)  # [rows, hidden]
            failed = _not_finite(batch, hidden)
            logits = self._model.logits(hidden[batch.sampled_rows]).cpu()  # [chunks that sample, vocab]
        except (RuntimeError, MemoryError) as error:
            raise EngineStepError(f"the forward pass failed: {error}") from error
        return _sample_rows(batch, logits, failed)


def _not_finite(batch: Batch, hidden: Tensor) -> dict[str, RequestFailure]:
    """Requests with a row that is not finite, wherever in their chunk: rows behind it would attend to it."""
    finite = hidden.abs().amax(-1).isfinite().tolist()
    failed, row = {}, 0
    for chunk in batch.chunks:
        if not all(finite[row : row + chunk.length]):
            failed[chunk.request.request_id] = NOT_FINITE
        row += chunk.length
    return failed


def _sample_rows(batch: Batch, logits: Tensor, failed: dict[str, RequestFailure]) -> StepResult:
    sampled: dict[str, int] = {}
    rows = logits.numpy()
    requests = [chunk.request for chunk in batch.chunks if chunk.samples]
    for row, request in zip(rows, requests, strict=True):
        if request.request_id in failed:
            continue
        outcome = contain(request.request_id, partial(sample, row, request))
        if isinstance(outcome, RequestFailure):
            failed[request.request_id] = outcome
        else:
            sampled[request.request_id] = outcome
    return StepResult(sampled, failed)
