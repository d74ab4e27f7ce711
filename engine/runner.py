"""Carries a plan out: batch, forward pass, one sample a row. Takes no decision; a bad row fails its own request."""

import numpy as np
import torch
from torch import Tensor

from engine.batch import build_batch
from engine.models.llama import Llama
from engine.request import Request, RequestFailure
from engine.sampler import sample
from engine.scheduler import ScheduledChunk, SchedulePlan, StepResult


class Runner:
    """One model on one device."""

    def __init__(self, model: Llama, page_size: int, device: torch.device) -> None:
        self._model = model
        self._page_size = page_size
        self._device = device

    @torch.inference_mode()
    def execute(self, plan: SchedulePlan) -> StepResult:
        """A token or a failure for every chunk that samples, and a failure for any other whose rows went wrong."""
        if not plan.chunks:
            return StepResult({}, {})
        batch = build_batch(plan.chunks, self._page_size, self._device)
        hidden = self._model.forward(batch)  # [rows, hidden]
        failures = _broken(batch.chunks, hidden)
        sampling = [chunk.request for chunk in batch.chunks if chunk.samples]
        tokens: dict[str, int] = {}
        if sampling:
            logits = self._model.logits(hidden.index_select(0, batch.sampled_rows)).cpu().numpy()  # [sampling, vocab]
            for request, row in zip(sampling, logits, strict=True):
                if request.id not in failures:
                    outcome = _choose(row, request)
                    if isinstance(outcome, RequestFailure):
                        failures[request.id] = outcome
                    else:
                        tokens[request.id] = outcome
        return StepResult(tokens, failures)


def _broken(chunks: tuple[ScheduledChunk, ...], hidden: Tensor) -> dict[str, RequestFailure]:
    """Requests with a row that is not finite: the same input would give it again, so it is not to be retried."""
    finite = hidden.isfinite().all(dim=1).tolist()  # [rows]
    if all(finite):
        return {}
    failures, row = {}, 0
    for chunk in chunks:
        if not all(finite[row : row + chunk.length]):
            message = "The model computed a value that is not a finite number for this request."
            failures[chunk.request.id] = RequestFailure("engine_error", message)
        row += chunk.length
    return failures


def _choose(row: np.ndarray[tuple[int], np.dtype[np.float32]], request: Request) -> int | RequestFailure:
    if not np.isfinite(row).all():
        return RequestFailure("engine_error", "The model's logits for this request are not finite numbers.")
    try:
        return sample(row, request)
    except Exception as error:  # noqa: BLE001 - ends as this request's failure; its neighbours' rows are their own
        return RequestFailure("engine_error", f"Sampling failed: {error!r}.")
