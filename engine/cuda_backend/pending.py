"""A step that is under way on the device, and what the engine is told when it has arrived; launches nothing."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from engine.batch import Batch
from engine.cuda_backend.filling import RowEdits
from engine.cuda_backend.mailbox import Arrays
from engine.logprobs import TokenLogprobs
from engine.outcome import RequestFailure
from engine.request import Request
from engine.runner import Runner, broken
from engine.sampler import NOT_FINITE, NOTHING_LEFT
from engine.step_plan import StepResult
from kernels.reference.sampling_table import NO_TOKEN


class Mark(Protocol):
    """A place on the device's stream."""

    def synchronize(self) -> None:
        """Waits until the device has passed it."""
        ...


class AtOnce:
    """The mark of a device that finishes each launch before the next."""

    def synchronize(self) -> None:
        pass


def mark(device: torch.device) -> Mark:
    """The place behind all that was launched so far."""
    if device.type != "cuda":
        return AtOnce()
    event: torch.cuda.Event = torch.cuda.Event()  # type: ignore[no-untyped-call]
    event.record()
    return event


@dataclass(frozen=True, slots=True)
class PendingStep:
    """`arrays` are read behind `arrival`. `failures` and `edits` (of rows that sample) were known before; `hidden` is
    there where prompts are to be explained, which `host` does."""

    batch: Batch
    arrays: Arrays
    arrival: Mark
    edits: Sequence[RowEdits]
    failures: dict[str, RequestFailure]
    host: Runner
    vocab_size: int
    hidden: NDArray[np.float32] | None

    def result(self) -> StepResult:
        """Waits for the device. To be asked once."""
        self.arrival.synchronize()
        batch, arrays = self.batch, self.arrays
        sound = arrays["sound"][: len(batch.token_ids)].astype(np.bool_)
        failures = self.failures | ({} if sound.all() else broken(batch.chunks, sound))
        tokens: dict[str, int] = {}
        logprobs: dict[str, tuple[TokenLogprobs, ...]] = {}
        requests = [chunk.request for chunk in batch.chunks if chunk.samples]
        for row, (request, token_id) in enumerate(zip(requests, arrays["sampled_ids"].tolist(), strict=False)):
            if request.id in failures:
                continue
            if token_id == NO_TOKEN:
                failures[request.id] = self._why_none(self.edits[row])
                continue
            tokens[request.id] = token_id
            if request.params.logprobs is not None:
                logprobs[request.id] = (self._explained(row, request),)
        explained = {} if self.hidden is None else self.host.explain_prompts(batch, self.hidden, failures)
        return StepResult(tokens, failures, logprobs, explained)

    def _why_none(self, edits: RowEdits) -> RequestFailure:
        return NOTHING_LEFT if len(edits.barred_ids) >= self.vocab_size else NOT_FINITE

    def _explained(self, row: int, request: Request) -> TokenLogprobs:
        count = request.params.logprobs or 0
        ids, values = self.arrays["top_ids"][row, :count].tolist(), self.arrays["top_logprobs"][row, :count].tolist()
        top = tuple((token_id, value) for token_id, value in zip(ids, values, strict=True) if token_id != NO_TOKEN)
        return TokenLogprobs(float(self.arrays["logprobs"][row]), top)
