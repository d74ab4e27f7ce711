"""Requests that sample together, as the arrays that compiled code takes; knows parameters and ids, no logits.

Most steps sample for the same requests as the step before, so what follows from their parameters is made once.
"""

from array import array
from collections.abc import Sequence
from operator import is_
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from engine.elementary import Counts
from engine.request import Request
from engine.sampler import Masks
from engine.sampling_state import NO_EDITS, RowState

_PARAMETERS: Final = 7  # as many as a RowState has


class FlatEdits(NamedTuple):
    """All rows' edits behind each other, and where each row's three runs begin and end."""

    edges: Counts  # [rows, 4]
    token_ids: NDArray[np.int32]
    amounts: NDArray[np.float64]


class RowMasks(NamedTuple):
    """Which mask each row has, -1 for none, and all masks."""

    mask_of: Counts  # [rows]
    masks: NDArray[np.uint32]  # [masks, vocab / 32]


class SampledBatch:
    """`requests` in the order of their rows; `explained` are the rows that want log probabilities, `drawing` is how
    many are not greedy. Lasts while the same requests sample, in the same order."""

    def __init__(self, states: Sequence[RowState]) -> None:
        rows = len(states)
        self.states = states
        self.requests = [state.request for state in states]
        self.explained = [row for row, request in enumerate(self.requests) if request.params.logprobs is not None]
        self.parameters = np.array([state.parameters for state in states]).reshape(rows, _PARAMETERS)
        self.keys = np.array([state.key for state in states], dtype=np.uint64)  # [rows]
        self.drawing = int(np.count_nonzero(self.parameters[:, 0]))
        self._is_plain = all(state.is_plain for state in states)
        self._no_edits = FlatEdits(np.zeros((rows, 4), dtype=np.int64), np.empty(0, dtype=np.int32), np.empty(0))
        self._no_masks = RowMasks(np.full(rows, -1, dtype=np.int64), np.empty((0, 0), dtype=np.uint32))

    def is_of(self, requests: Sequence[Request]) -> bool:
        """Whether these requests are the batch. Another request of the same name is another."""
        return len(requests) == len(self.requests) and all(map(is_, requests, self.requests))

    def offsets(self) -> NDArray[np.uint64]:
        """Where in its output each request's next token will stand.  # [rows]"""
        return np.array([request.output_length for request in self.requests], dtype=np.uint64)

    def edits(self) -> FlatEdits:
        """For the next token of each."""
        if self._is_plain:
            return self._no_edits
        edges = np.zeros((len(self.states), 4), dtype=np.int64)
        token_ids, amounts = array("i"), array("d")
        for row, state in enumerate(self.states):
            own = state.edits(state.request.output_length)
            if own is not NO_EDITS:
                start = len(token_ids)
                edges[row] = start, start + own.biases, start + own.seen, start + len(own.token_ids)
                token_ids += own.token_ids
                amounts += own.amounts
        return FlatEdits(edges, np.array(token_ids), np.array(amounts))

    def masks(self, masks: Masks) -> RowMasks:
        """Those of the batch's rows among some by request id."""
        if not masks:
            return self._no_masks
        mask_of = np.full(len(self.requests), -1, dtype=np.int64)
        found: list[NDArray[np.uint32]] = []
        for row, request in enumerate(self.requests):
            if (mask := masks.get(request.id)) is not None:
                mask_of[row] = len(found)
                found.append(mask)
        return RowMasks(mask_of, np.stack(found)) if found else self._no_masks
