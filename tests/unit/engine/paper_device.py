"""A device on paper: it writes steps down when they are launched, and carries them out in their order once somebody
waits for one, as late as a real one may. Its "keys" are the tokens themselves, so what a page holds decides the next
token, and a page given away too early changes somebody's text. Knows plans and slots, no numbers."""

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine import EngineConfig, RequestFailure, TokenLogprobs
from engine.batch import Batch, build_batch
from engine.loaders import open_model
from engine.loading import LoadedModel
from engine.request import Request
from engine.step_plan import ScheduledChunk, SchedulePlan, StepResult

VOCABULARY = 24
END, POISON = 3, 4
"""Tokens: one that ends a request, and one that, on a device with `poison`, fails whoever sees it."""
_SICK = RequestFailure("engine_error", "poison")
_NOBODYS = -1


@dataclass(slots=True, eq=False)
class PaperStep:
    """What the host sent. `fed`: chunks whose last token the device has to know."""

    device: "PaperDevice"
    batch: Batch
    fed: tuple[bool, ...]
    outcome: dict[str, tuple[int, ...]] | None = None

    def result(self) -> StepResult:
        self.device.carry_out(self)
        assert self.outcome is not None
        tokens: dict[str, int] = {}
        failures: dict[str, RequestFailure] = {}
        logprobs: dict[str, tuple[TokenLogprobs, ...]] = {}
        explained: dict[str, Sequence[TokenLogprobs]] = {}
        for chunk in self.batch.chunks:
            request, seen = chunk.request, self.outcome[chunk.request.id]
            self.device.surplus += request.finish_reason() is not None
            if self.device.poison and POISON in seen[: chunk.end]:
                failures[request.id] = _SICK
                continue
            wanted = request.unexplained(chunk.start, chunk.end)
            explained[request.id] = [_entry(seen[: position + 1]) for position in wanted]
            if chunk.samples:
                tokens[request.id] = seen[-1]
                if request.params.logprobs is not None:
                    logprobs[request.id] = (_entry(seen),)
        return StepResult(tokens, failures, logprobs, explained)


class PaperDevice:
    """`surplus` counts rows that were computed for requests which had ended meanwhile."""

    identity: Mapping[str, str] = {}
    vocab_size = VOCABULARY

    def __init__(self, slots: int, page_size: int, *, runs_ahead: bool, poison: bool = False) -> None:
        self.runs_ahead, self.poison = runs_ahead, poison
        self.surplus = 0
        self._page_size = page_size
        self._cells = np.full(slots, _NOBODYS)
        self._latest: dict[Request, int] = {}
        self._written: deque[PaperStep] = deque()

    def launch(self, plan: SchedulePlan) -> PaperStep:
        assert len(self._written) <= self.runs_ahead, "more steps under way than agreed"
        batch = build_batch(plan.chunks, self._page_size)
        fed = tuple(chunk.end > len(chunk.request.ids) for chunk in batch.chunks)
        self._written.append(PaperStep(self, batch, fed))
        return self._written[-1]

    def carry_out(self, wanted: PaperStep) -> None:
        """All steps up to that one. Rows are written before any is read, as a layer of a model does."""
        while wanted.outcome is None:
            step = self._written.popleft()
            batch, ids = step.batch, step.batch.token_ids.copy()
            ends = np.cumsum([chunk.length for chunk in batch.chunks]) - 1
            for end, chunk, fed in zip(ends, batch.chunks, step.fed, strict=True):
                if fed:
                    ids[end] = self._latest[chunk.request]
            self._cells[batch.slots] = ids
            step.outcome = {
                chunk.request.id: self._seen(chunk, table)
                for chunk, table in zip(batch.chunks, batch.tables, strict=True)
            }

    def _seen(self, chunk: ScheduledChunk, table: NDArray[np.int64]) -> tuple[int, ...]:
        """All that the chunk's last row sees, and the token it gives."""
        cells = self._cells.reshape(-1, self._page_size)[table].reshape(-1)[: chunk.end]
        seen = tuple(cells.tolist())
        if not chunk.samples:
            return seen
        params = chunk.request.params
        token_id = _digest(seen, params.seed, params.choice, params.temperature) % VOCABULARY
        if chunk.offset < params.min_tokens and token_id in chunk.request.end_ids:
            token_id = VOCABULARY - 1
        self._latest[chunk.request] = token_id
        return (*seen, token_id)

    def forward(self, batch: Batch) -> NDArray[np.float32]:
        raise NotImplementedError

    def logits(self, hidden: NDArray[np.float32]) -> NDArray[np.float32]:
        raise NotImplementedError


def load_on_paper(config: EngineConfig, *, runs_ahead: bool = True, poison: bool = False) -> LoadedModel:
    """The file's description with a small vocabulary, so that texts meet their ends."""
    assert config.num_pages is not None
    with open_model(config.model) as opened:
        described = opened.describe()
    shape = replace(described.shape, vocab_size=VOCABULARY)
    description = replace(described, shape=shape, eos_ids=(END,))
    slots = (config.num_pages + 1) * config.page_size
    device = PaperDevice(slots, config.page_size, runs_ahead=runs_ahead, poison=poison)
    return LoadedModel(device, description, config.num_pages, config.num_pages * config.page_size, "paper")


def _entry(seen: Sequence[int]) -> TokenLogprobs:
    return TokenLogprobs(-float(_digest(seen) % 10_000), ())


def _digest(*values: Any) -> int:
    return int.from_bytes(blake2b(repr(values).encode(), digest_size=8).digest(), "little")
