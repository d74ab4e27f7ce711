"""Carries a plan out on a GPU: one copy in, forward pass and sampling, one copy out; takes no decision.

    launch   host arrays -> device -> decoder -> sampler -> host side, all in order on one stream, nobody waits
    result   waits for that, and says it in the engine's words

A step of single rows is padded up to a bucket and replayed as a graph; any other is launched kernel by kernel, with as
many sequences and samples as some bucket has, so that no kernel is compiled while requests wait. Tokens
stay on the device as well: the row that continues a sequence begins with the token chosen there last, whatever the
host knows of it. A row that goes wrong fails its own request.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from engine.batch import Batch, build_batch
from engine.cuda_backend.decoder import Decoder
from engine.cuda_backend.filling import NOTHING, RowEdits, edits_of, fill_rows, fill_samples, listed
from engine.cuda_backend.graphs import Launcher
from engine.cuda_backend.operations import Operations
from engine.cuda_backend.pending import Mark, PendingStep, mark
from engine.cuda_backend.seats import Seats
from engine.cuda_backend.step_memory import LISTED, Bucket, Room, StepMemory
from engine.outcome import RequestFailure
from engine.runner import Runner
from engine.sampler import PlainSampler
from engine.step_plan import SchedulePlan
from kernels.ops import SamplingTable

# Pages of the shortest tables: 1,024 tokens of 16 a page. Longer ones come in powers of two.
_FEWEST_PAGES: Final = 64
# Rows of one sequence around every cut that kernels make, and rows of each of several.
_TILED_ROWS: Final = (1, 2, 3, 4, 16, 32, 128)
_MIXED_ROWS: Final = 8
_NOTHING: Final = np.zeros(0, dtype=np.int64)
_NOBODY: Final = Batch((), _NOTHING, _NOTHING, _NOTHING, np.zeros((0, 1), dtype=np.int64), _NOTHING, 1)


class CudaRunner:
    """A CausalLM that also chooses tokens. `identity` is what may change their bits, besides the weights. It needs no
    token to come from the host, so steps may run ahead; with `runs_ahead` false each is heard of before the next."""

    def __init__(
        self,
        decoder: Decoder,
        operations: Operations,
        launcher: Launcher,
        identity: Mapping[str, str],
        page_size: int,
        room: Room,
        device: torch.device,
        *,
        runs_ahead: bool = True,
    ) -> None:
        shape = decoder.shape
        self.vocab_size, self.identity, self.runs_ahead = shape.vocab_size, identity, runs_ahead
        self._decoder, self._operations, self._launcher = decoder, operations, launcher
        self._page_size, self._room, self._device = page_size, room, device
        with torch.inference_mode():
            self._seats = Seats(room.sequences, shape.vocab_size, device)
            self._memory = StepMemory(room, shape.vocab_size, shape.hidden_size, device)
        self._buckets = row_buckets(room.sequences)
        self._mixed = (*self._buckets[:-1:2], self._buckets[-1])
        self._host = Runner(self, page_size, PlainSampler())

    @torch.inference_mode()
    def launch(self, plan: SchedulePlan) -> PendingStep:
        """Puts the step on the device's stream. Take its result before the launch after next: by then the host's side
        of this one is written anew."""
        batch = build_batch(plan.chunks, self._page_size)
        chunks = [chunk for chunk in batch.chunks if chunk.samples]
        bucket = self._bucket(batch, len(chunks))
        placed = self._seats.place([chunk.request for chunk in chunks])
        found = [edits_of(seat, chunk) for seat, chunk in zip(placed, chunks, strict=True)]
        failures = {
            chunk.request.id: edits
            for chunk, edits in zip(chunks, found, strict=True)
            if isinstance(edits, RequestFailure)
        }
        edits = [NOTHING if isinstance(each, RequestFailure) else each for each in found]
        arrays = self._memory.inputs.turn()
        fill_rows(arrays, batch, bucket)
        fill_samples(arrays, batch, chunks, placed, edits, self._seats, bucket)
        self._memory.inputs.send("tables", bucket.sequences * bucket.pages)
        for seat, chunk in zip(placed, chunks, strict=True):
            self._seats.remember(seat, chunk.end)
        self._run(bucket, edits)
        for seat, chunk in zip(placed, chunks, strict=True):
            seat.position, seat.counted = chunk.end, seat.counted + (seat.counted >= 0)
        hidden = self._hidden(len(batch.token_ids)) if _explains(batch) else None
        arrays = self._memory.results.fetch()
        return PendingStep(batch, arrays, self._mark(), edits, failures, self._host, self.vocab_size, hidden)

    @torch.inference_mode()
    def forward(self, batch: Batch) -> NDArray[np.float32]:
        """The hidden state of every row, without sampling.  # [rows, hidden]"""
        bucket = Bucket(len(batch.token_ids), len(batch.chunks), self._pages(batch), 0)
        fill_rows(self._memory.inputs.turn(), batch, bucket)
        self._memory.inputs.send("tables", bucket.sequences * bucket.pages)
        self._run(bucket, ())
        return self._hidden(bucket.rows)

    @torch.inference_mode()
    def logits(self, hidden: NDArray[np.float32]) -> NDArray[np.float32]:
        """hidden [rows, hidden] -> [rows, vocab], as many rows at once as there are places for logits."""
        found = []
        for start in range(0, len(hidden), self._room.sequences):
            rows = torch.from_numpy(hidden[start : start + self._room.sequences]).to(self._device)
            logits = self._memory.logits(len(rows))
            self._decoder.head(rows, logits)
            found.append(logits.cpu().numpy().copy())
        return np.concatenate(found)

    @torch.inference_mode()
    def warm_up(self) -> None:
        """Runs every bucket of decode steps, and eager steps of every kind of tile, over padding alone: compiles
        kernels, captures graphs, and changes nothing that a request could see."""
        tables = sorted({self._table(1), self._room.pages})
        decode = [Bucket(count, count, pages, count) for pages in tables for count in self._buckets]
        cut = [Bucket(min(rows, self._room.rows), 1, tables[0], 0) for rows in _TILED_ROWS]
        mixed = [
            Bucket(rows, count, tables[0], 0)
            for count in self._mixed
            for rows in sorted({min(_MIXED_ROWS * count, self._room.rows), self._room.rows})
        ]
        for bucket in dict.fromkeys((*cut, *mixed, *decode)):
            arrays = self._memory.inputs.turn()
            fill_rows(arrays, _NOBODY, bucket)
            fill_samples(arrays, _NOBODY, (), (), (), self._seats, bucket)
            self._memory.inputs.send("tables", bucket.sequences * bucket.pages)
            self._run(bucket, ())
            self._mark().synchronize()

    def _bucket(self, batch: Batch, samples: int) -> Bucket:
        rows, sequences = len(batch.token_ids), len(batch.chunks)
        if rows > self._room.rows or sequences > self._room.sequences:
            raise RuntimeError(
                f"a step of {rows} rows of {sequences} requests, where the model was loaded for {self._room.rows} "
                f"rows of {self._room.sequences}; load it with the engine's own config"
            )
        if rows > sequences:
            padded = _at_least(sequences, self._mixed)
            return Bucket(rows, padded, self._pages(batch), _at_least(samples, self._buckets) if samples else 0)
        padded = _at_least(rows, self._buckets)
        return Bucket(padded, padded, self._pages(batch), padded)

    def _pages(self, batch: Batch) -> int:
        return self._table(batch.tables.shape[1])

    def _table(self, pages: int) -> int:
        """So long are the tables of a step that needs `pages` of them: powers of two, so that graphs are few."""
        return min(max(_FEWEST_PAGES, 1 << (pages - 1).bit_length()), self._room.pages)

    def _run(self, bucket: Bucket, edits: Sequence[RowEdits]) -> None:
        table = self._memory.table(bucket.samples, self._seats.history)
        if listed(edits) > LISTED:
            self._launches(bucket, _with_own_lists(table, edits))
        elif bucket.rows == bucket.sequences == bucket.samples:
            self._launcher.launch(bucket, lambda: self._launches(bucket, table))
        else:
            self._launches(bucket, table)

    def _launches(self, bucket: Bucket, table: SamplingTable) -> None:
        """Everything that a step does on the device."""
        memory, samples = self._memory, bucket.samples
        memory.settle_token_ids(bucket.rows, self._seats.latest)
        stream = self._decoder.forward(memory.step_inputs(bucket))
        memory.note_sound(stream)
        if not samples:
            return
        logits = memory.logits(samples)
        self._decoder.head(memory.sampling_hidden(stream, samples), logits)
        self._operations.sample(logits, table, memory.scores(samples), memory.sampled(samples))
        memory.note_latest(self._seats, samples)

    def _hidden(self, rows: int) -> NDArray[np.float32]:
        found: NDArray[np.float32] = self._decoder.stream(rows).cpu().numpy().copy()
        return found

    def _mark(self) -> Mark:
        """The place on the stream behind all that was launched so far."""
        return mark(self._device)


def row_buckets(most: int) -> tuple[int, ...]:
    """1, 2, 4, 8 ... and `most` itself."""
    powers = (1 << power for power in range(most.bit_length()))
    return (*(count for count in powers if count < most), most)


def _at_least(count: int, buckets: Sequence[int]) -> int:
    return next(bucket for bucket in buckets if bucket >= count)


def _explains(batch: Batch) -> bool:
    """Whether somebody wants log probabilities of prompt tokens behind this step's rows."""
    return any(chunk.request.unexplained(chunk.start, chunk.end) for chunk in batch.chunks)


def _with_own_lists(table: SamplingTable, edits: Sequence[RowEdits]) -> SamplingTable:
    """The same rows with lists as long as it takes."""
    device = table.bias_ids.device

    def run(name: str, dtype: torch.dtype) -> torch.Tensor:
        values = [value for each in edits for value in getattr(each, name)]
        return torch.tensor(values or [0], dtype=dtype).to(device)

    return replace(
        table,
        bias_ids=run("bias_ids", torch.int32),
        bias_values=run("bias_values", torch.float32),
        barred_ids=run("barred_ids", torch.int32),
    )
