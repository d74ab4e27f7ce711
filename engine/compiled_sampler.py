"""The fast sampler: turns requests into arrays for the compiled functions, and their results into tokens.

Knows parameters and rows, no formulas: `engine.sampler` has those, and chooses the same tokens.
"""

from array import array
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import numpy as np
from numpy.typing import NDArray

from engine.elementary import Counts
from engine.logprobs import TokenLogprobs, logprob_entries
from engine.request import Request, SamplingParams
from engine.sampler import NO_MASKS, NOT_FINITE, NOTHING_LEFT, Masks, Rows, Sampled, gone_wrong
from engine.sampling_state import NO_EDITS, Edits, RowState
from kernels.cpu import sampling

# More threads wait for memory, and each has its own room: 24 bytes for each token of the vocabulary.
_MOST_PARTS: Final = 8
# A thread takes some 50 microseconds to come; a greedy look at so many logits takes five times that, and drawing from
# them ten times as long again.
_WORTH_A_THREAD: Final = 1 << 21
_DRAWING: Final = 10
_FAILURES: Final = {sampling.NOT_FINITE: NOT_FINITE, sampling.NOTHING_LEFT: NOTHING_LEFT}


class CompiledSampler:
    """Keeps what it knows of the requests that sampled last, and room to work in. Compiles when it is made."""

    def __init__(self, vocab_size: int, threads: int) -> None:
        self._vocab_size = vocab_size
        self._room = sampling.new_room(min(threads, _MOST_PARTS), vocab_size)
        self._helpers = ThreadPoolExecutor(max(1, len(self._room[0]) - 1), "sampler")
        self._states: dict[str, RowState] = {}
        self._warm()

    def sample(self, logits: Rows, requests: Sequence[Request], masks: Masks = NO_MASKS) -> Sampled:
        """The next token of each row's request. A row that goes wrong fails its own request alone."""
        sampled = Sampled()
        states, edits = self._prepare(requests, sampled)
        if not states:
            return sampled
        if sampled.failures:
            logits = logits[[request.id not in sampled.failures for request in requests]]
        tokens = self._choose(logits, states, edits, masks)
        asked: list[int] = []
        for row, (state, token) in enumerate(zip(states, tokens.tolist(), strict=True)):
            request = state.request
            if token < 0:
                sampled.failures[request.id] = _FAILURES[token]
                continue
            sampled.tokens[request.id] = token
            if request.params.logprobs is not None:
                asked.append(row)
        if asked:
            explained = [states[row].request for row in asked]
            wanted = [request.params.logprobs or 0 for request in explained]
            entries = self._explain(logits, np.array(asked), tokens[asked], wanted)
            assert entries is not None, "a token was chosen from a row that is not finite"
            sampled.logprobs = {request.id: (entry,) for request, entry in zip(explained, entries, strict=True)}
        return sampled

    def explain(self, logits: Rows, token_ids: Sequence[int], alternatives: int) -> list[TokenLogprobs] | None:
        """Each row's token explained, or None when one of the rows is not finite."""
        rows = np.arange(len(logits))
        return self._explain(logits, rows, np.array(token_ids, dtype=np.int64), [alternatives] * len(rows))

    def _prepare(self, requests: Sequence[Request], sampled: Sampled) -> tuple[list[RowState], list[Edits]]:
        """What is known of each request, and how its row is to be edited. One that cannot be said fails alone."""
        states, edits = [], []
        for request in requests:
            state = self._states.get(request.id)
            try:
                if state is None or state.request is not request:
                    state = RowState(request, self._vocab_size)
                edits.append(state.edits(request.output_length))
            except Exception as error:  # noqa: BLE001 - ends as this request's failure; its neighbours' rows are their own
                sampled.failures[request.id] = gone_wrong(error)
            else:
                states.append(state)
        self._states = {state.request.id: state for state in states}
        return states, edits

    def _choose(self, logits: Rows, states: Sequence[RowState], edits: Sequence[Edits], masks: Masks) -> Counts:
        """A token or the number of a failure for each row.  # [rows]"""
        count = len(states)
        parameters = np.array([state.parameters for state in states])
        keys = np.array([state.key for state in states], dtype=np.uint64)
        offsets = np.array([state.request.output_length for state in states], dtype=np.uint64)
        edges, edited, amounts = _flat(edits)
        mask_of, stacked = _stacked(states, masks)
        tokens = np.empty(count, dtype=np.int64)
        drawing = count - int(np.count_nonzero(parameters[:, 0] == 0.0))
        work = count + _DRAWING * max(drawing, int(np.count_nonzero(edges[:, 0] != edges[:, 3])))
        inputs = (_rows(logits, self._vocab_size), parameters, keys, offsets, edges, edited, amounts, mask_of, stacked)
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
        parts = min(len(self._room[0]), rows, max(1, work * self._vocab_size // _WORTH_A_THREAD))
        room = tuple(array[:parts] for array in self._room)
        others = [self._helpers.submit(function, *inputs, part, *room, *results) for part in range(1, parts)]
        function(*inputs, 0, *room, *results)
        for other in others:
            other.result()

    def _warm(self) -> None:
        """Compiles both functions, or finds them in their cache, before anyone waits for a token."""
        request = Request("warm", SamplingParams(max_tokens=1, logprobs=1), [0], 1, 0, 0, frozenset())
        self.sample(np.zeros((1, self._vocab_size), dtype=np.float32), [request])
        self._states.clear()


def _rows(logits: Rows, vocab_size: int) -> Rows:
    assert logits.shape[1] == vocab_size
    return np.ascontiguousarray(logits, dtype=np.float32)


def _flat(edits: Sequence[Edits]) -> tuple[Counts, NDArray[np.int32], NDArray[np.float64]]:
    """All edits behind each other, and the edges of each row's runs.  # [rows, 4]"""
    edges = np.zeros((len(edits), 4), dtype=np.int64)
    token_ids, amounts = array("i"), array("d")
    for row, own in enumerate(edits):
        if own is not NO_EDITS:
            start = len(token_ids)
            edges[row] = start, start + own.biases, start + own.seen, start + len(own.token_ids)
            token_ids += own.token_ids
            amounts += own.amounts
    return edges, np.array(token_ids), np.array(amounts)


def _stacked(states: Sequence[RowState], masks: Masks) -> tuple[Counts, NDArray[np.uint32]]:
    """Which mask each row has, -1 for none, and all masks.  # [rows], [masks, vocab / 32]"""
    mask_of = np.full(len(states), -1, dtype=np.int64)
    found: list[NDArray[np.uint32]] = []
    if masks:
        for row, state in enumerate(states):
            if (mask := masks.get(state.request.id)) is not None:
                mask_of[row] = len(found)
                found.append(mask)
    return mask_of, np.stack(found) if found else np.empty((0, 0), dtype=np.uint32)
