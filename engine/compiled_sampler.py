"""The fast sampler: turns requests into arrays for the compiled functions, and their results into tokens.

Knows parameters and rows, no formulas: `engine.sampler` has those, and chooses the same tokens.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import numpy as np
from numpy.typing import NDArray

from engine.elementary import Counts
from engine.logprobs import TokenLogprobs, logprob_entries
from engine.request import Request, SamplingParams
from engine.sampled_batch import SampledBatch
from engine.sampler import NO_MASKS, NOT_FINITE, NOTHING_LEFT, Masks, Rows, Sampled, gone_wrong
from engine.sampling_state import RowState
from kernels.cpu import sampling, sampling_blocks

# More threads wait for memory, and each has its own room: 24 bytes for each token of the vocabulary.
_MOST_PARTS: Final = 8
# A thread takes some 50 microseconds to come; a greedy look at so many logits takes five times that, and drawing from
# them ten times as long again.
_WORTH_A_THREAD: Final = 1 << 21
_DRAWING: Final = 10
_FAILURES: Final = {sampling_blocks.NOT_FINITE: NOT_FINITE, sampling.NOTHING_LEFT: NOTHING_LEFT}


class CompiledSampler:
    """Keeps what it knows of the requests that sampled last, and room to work in. Compiles when it is made."""

    def __init__(self, vocab_size: int, threads: int) -> None:
        self._vocab_size = vocab_size
        most = min(threads, _MOST_PARTS)
        room = sampling.new_room(most, vocab_size)
        self._rooms = [tuple(array[:parts] for array in room) for parts in range(1, most + 1)]
        self._helpers = ThreadPoolExecutor(max(1, most - 1), "sampler")
        self._batch = SampledBatch(())
        self._warm()

    def sample(self, logits: Rows, requests: Sequence[Request], masks: Masks = NO_MASKS) -> Sampled:
        """The next token of each row's request. A row that goes wrong fails its own request alone."""
        sampled = Sampled()
        if not self._batch.is_of(requests):
            self._batch = self._meet(requests, sampled)
        batch = self._batch
        if sampled.failures:
            logits = logits[[request.id not in sampled.failures for request in requests]]
        if not batch.requests:
            return sampled
        tokens = self._choose(logits, batch, masks)
        for request, token in zip(batch.requests, tokens.tolist(), strict=True):
            if token < 0:
                sampled.failures[request.id] = _FAILURES[token]
            else:
                sampled.tokens[request.id] = token
        if asked := [row for row in batch.explained if tokens[row] >= 0]:
            explained = [batch.requests[row] for row in asked]
            wanted = [request.params.logprobs or 0 for request in explained]
            entries = self._explain(logits, np.array(asked), tokens[asked], wanted)
            assert entries is not None, "a token was chosen from a row that is not finite"
            sampled.logprobs = {request.id: (entry,) for request, entry in zip(explained, entries, strict=True)}
        return sampled

    def explain(self, logits: Rows, token_ids: Sequence[int], alternatives: int) -> list[TokenLogprobs] | None:
        """Each row's token explained, or None when one of the rows is not finite."""
        rows = np.arange(len(logits))
        return self._explain(logits, rows, np.array(token_ids, dtype=np.int64), [alternatives] * len(rows))

    def _meet(self, requests: Sequence[Request], sampled: Sampled) -> SampledBatch:
        """The batch of those requests of which something can be said; any other fails alone."""
        known = {state.request.id: state for state in self._batch.states}
        states = []
        for request in requests:
            state = known.get(request.id)
            try:
                if state is None or state.request is not request:
                    state = RowState(request, self._vocab_size)
            except Exception as error:  # noqa: BLE001 - ends as this request's failure; its neighbours' rows are their own
                sampled.failures[request.id] = gone_wrong(error)
            else:
                states.append(state)
        return SampledBatch(states)

    def _choose(self, logits: Rows, batch: SampledBatch, masks: Masks) -> Counts:
        """A token or the number of a failure for each row.  # [rows]"""
        count, edits = len(batch.requests), batch.edits()
        tokens = np.empty(count, dtype=np.int64)
        edited = int(np.count_nonzero(edits.edges[:, 0] != edits.edges[:, 3])) if len(edits.token_ids) else 0
        work = count + _DRAWING * max(batch.drawing, edited)
        rows = _rows(logits, self._vocab_size)
        inputs = (rows, batch.parameters, batch.keys, batch.offsets(), *edits, *batch.masks(masks))
        self._run(sampling.sample_rows, inputs, (tokens,), count, work)
        return tokens

    def _explain(
        self, logits: Rows, rows: Counts, token_ids: Counts, alternatives: Sequence[int]
    ) -> list[TokenLogprobs] | None:
        count, most = len(rows), min(max(alternatives, default=0), self._vocab_size)
        named = np.empty((count, 1 + most), dtype=np.int64)
        named[:, 0] = token_ids
        gaps, totals = np.empty(named.shape), np.empty(count, dtype=np.int64)
        inputs = (_rows(logits, self._vocab_size), rows, named)
        self._run(sampling.explain_rows, inputs, (totals, gaps), count, _DRAWING * count)
        return logprob_entries(totals, gaps, named, alternatives) if totals.all() else None

    def _run(
        self,
        function: Callable[..., None],
        inputs: tuple[NDArray[np.generic], ...],
        results: tuple[NDArray[np.generic], ...],
        rows: int,
        work: int,
    ) -> None:
        """Each part takes its own rows; which part a row falls to changes nothing."""
        parts = min(len(self._rooms), rows, max(1, work * self._vocab_size // _WORTH_A_THREAD))
        room = self._rooms[parts - 1]
        others = [self._helpers.submit(function, *inputs, part, *room, *results) for part in range(1, parts)]
        function(*inputs, 0, *room, *results)
        for other in others:
            other.result()

    def _warm(self) -> None:
        """Compiles both functions, or finds them in their cache, before anyone waits for a token."""
        request = Request("warm", SamplingParams(max_tokens=1, logprobs=1), [0], 1, 0, 0, frozenset())
        self.sample(np.zeros((1, self._vocab_size), dtype=np.float32), [request])
        self._batch = SampledBatch(())


def _rows(logits: Rows, vocab_size: int) -> Rows:
    assert logits.shape[1] == vocab_size
    return np.ascontiguousarray(logits, dtype=np.float32)
