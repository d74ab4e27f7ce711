"""Writes a batch into the arrays that a step sends to the device; knows places and padding, launches nothing."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engine.batch import Batch
from engine.block_pool import NULL_PAGE
from engine.cuda_backend.mailbox import Arrays
from engine.cuda_backend.seats import Seat, Seats
from engine.cuda_backend.step_memory import LISTED, Bucket
from engine.outcome import RequestFailure
from engine.sampler import gone_wrong
from engine.sampling_state import NO_EDITS, Edits, RowState
from engine.step_plan import ScheduledChunk

_NONE = -1


@dataclass(frozen=True, slots=True)
class RowEdits:
    """What a row's tokens get besides its parameters: biases, and ids that are barred, each id once."""

    bias_ids: Sequence[int] = ()
    bias_values: Sequence[float] = ()
    barred_ids: Sequence[int] = ()


NOTHING = RowEdits()


def edits_of(seat: Seat, chunk: ScheduledChunk) -> RowEdits | RequestFailure:
    """For the token that the chunk gives the seat's request."""
    if not isinstance(seat.state, RowState):
        return seat.state
    try:
        edits = seat.state.edits(chunk.offset)
    except Exception as error:  # noqa: BLE001 - ends as this request's failure; its neighbours' rows are their own
        return gone_wrong(error)
    return NOTHING if edits is NO_EDITS else _without_counts(edits)


def _without_counts(edits: Edits) -> RowEdits:
    """Counts of seen tokens are the history's business here."""
    biases, seen = edits.biases, edits.seen
    return RowEdits(edits.token_ids[:biases], edits.amounts[:biases], tuple(dict.fromkeys(edits.token_ids[seen:])))


def listed(edits: Sequence[RowEdits]) -> int:
    """How long the longer of a step's two lists is."""
    return max(sum(len(each.bias_ids) for each in edits), sum(len(each.barred_ids) for each in edits))


def fill_rows(arrays: Arrays, batch: Batch, bucket: Bucket) -> None:
    """What the forward pass reads. Padding: rows without a slot, behind the last sequence's."""
    rows, sequences = len(batch.token_ids), len(batch.chunks)
    arrays["token_ids"][:rows] = batch.token_ids
    arrays["token_ids"][rows : bucket.rows] = 0
    arrays["fed_from"][: bucket.rows] = _NONE
    arrays["positions"][:rows] = batch.positions
    arrays["positions"][rows : bucket.rows] = 0
    arrays["slots"][:rows] = batch.slots
    arrays["slots"][rows : bucket.rows] = _NONE
    arrays["row_starts"][0] = 0
    arrays["row_starts"][1 : sequences + 1] = np.cumsum([chunk.length for chunk in batch.chunks])
    arrays["row_starts"][sequences + 1 : bucket.sequences + 1] = rows
    arrays["context_lens"][:sequences] = [chunk.end for chunk in batch.chunks]
    arrays["context_lens"][sequences : bucket.sequences] = 0
    tables = arrays["tables"][: bucket.sequences * bucket.pages].reshape(bucket.sequences, bucket.pages)
    tables[:sequences, : batch.tables.shape[1]] = batch.tables
    tables[:sequences, batch.tables.shape[1] :] = NULL_PAGE
    tables[sequences:] = NULL_PAGE


def fill_samples(
    arrays: Arrays,
    batch: Batch,
    chunks: Sequence[ScheduledChunk],
    placed: Sequence[Seat],
    edits: Sequence[RowEdits],
    seats: Seats,
    bucket: Bucket,
) -> None:
    """What sampling reads: `chunks` are those that sample, with their seats and edits. Padding sits on its own seat."""
    count, samples = len(chunks), bucket.samples
    arrays["sampled_rows"][:count] = batch.sampled_rows
    arrays["sampled_rows"][count:samples] = 0
    where = np.full(samples, seats.padding, dtype=np.int64)
    where[:count] = [seat.index for seat in placed]
    arrays["seats"][:samples] = where
    parameters = seats.parameters(where)
    for name in parameters.dtype.names or ():
        arrays[name][:samples] = parameters[name]
    arrays["mask_slot"][:samples] = _NONE
    arrays["offset"][:samples] = 0
    arrays["offset"][:count] = [chunk.offset for chunk in chunks]
    for row, seat, chunk in zip(batch.sampled_rows, placed, chunks, strict=True):
        if seat.position == chunk.end - 1:
            arrays["fed_from"][row] = seat.index
        else:
            assert chunk.end <= len(chunk.request.ids), "nobody knows the row's token"
    _fill_offsets(arrays["bias_offsets"][: samples + 1], [len(each.bias_ids) for each in edits])
    _fill_offsets(arrays["barred_offsets"][: samples + 1], [len(each.barred_ids) for each in edits])
    if listed(edits) <= LISTED:
        for name in ("bias_ids", "bias_values", "barred_ids"):
            run = [value for each in edits for value in getattr(each, name)]
            arrays[name][: len(run)] = run


def _fill_offsets(offsets: NDArray[np.generic], lengths: Sequence[int]) -> None:
    """Where each list begins; those of padding are empty, at the end of the last."""
    ends = np.cumsum(lengths)
    offsets[0] = 0
    offsets[1 : len(lengths) + 1] = ends
    offsets[len(lengths) + 1 :] = ends[-1] if len(lengths) else 0
