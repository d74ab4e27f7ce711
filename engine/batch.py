"""Turns a plan into the arrays of one step: token ids, positions, slots, block tables; decides nothing, needs no torch.

Rows of one step, in the order of the batch:

    | one row of each chunk that has one, by similar length |  chunk A: its rows  |  chunk B: its rows  | ...
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engine.block_pool import NULL_PAGE
from engine.step_plan import ScheduledChunk


@dataclass(frozen=True, slots=True)
class PageLayout:
    """`count` pages (the null page among them) of `size` tokens."""

    count: int
    size: int


@dataclass(frozen=True, slots=True)
class Batch:
    """One step. `chunks` are in the order of their rows, those of one row first, shortest context foremost.

    A row sees the positions up to its own, by its chunk's block table; tables end in null pages.
    `sampled_rows` are the last rows of chunks that sample.
    """

    chunks: tuple[ScheduledChunk, ...]
    token_ids: NDArray[np.int64]  # [rows]
    positions: NDArray[np.int64]  # [rows]
    slots: NDArray[np.int64]  # [rows]: page * page_size + offset in page
    row_chunk: NDArray[np.int64]  # [rows]: which chunk, and so which block table
    tables: NDArray[np.int64]  # [chunks, pages]
    sampled_rows: NDArray[np.int64]  # [chunks that sample]


def build_batch(chunks: Sequence[ScheduledChunk], page_size: int) -> Batch:
    """The arrays of one step. Each chunk's request already owns the pages up to the chunk's end."""
    single = sorted((chunk for chunk in chunks if chunk.length == 1), key=lambda chunk: chunk.end)
    ordered = (*single, *(chunk for chunk in chunks if chunk.length > 1))
    lengths = [chunk.length for chunk in ordered]
    row_chunk = np.repeat(np.arange(len(ordered)), lengths)
    token_ids = [token_id for chunk in ordered for token_id in chunk.request.token_ids(chunk.start, chunk.end)]
    positions = np.concatenate([np.arange(chunk.start, chunk.end) for chunk in ordered])
    tables = _tables(ordered, page_size)
    slots = tables[row_chunk, positions // page_size] * page_size + positions % page_size
    ends = np.cumsum(lengths) - 1
    return Batch(
        chunks=ordered,
        token_ids=np.array(token_ids, dtype=np.int64),
        positions=positions,
        slots=slots,
        row_chunk=row_chunk,
        tables=tables,
        sampled_rows=ends[[chunk.samples for chunk in ordered]],
    )


def _tables(ordered: Sequence[ScheduledChunk], page_size: int) -> NDArray[np.int64]:
    """[chunks, pages]: as far as each chunk sees, filled up with the null page."""
    needed = [-(-chunk.end // page_size) for chunk in ordered]
    tables = np.full((len(ordered), max(needed)), NULL_PAGE)
    for row, chunk, count in zip(tables, ordered, needed, strict=True):
        row[:count] = chunk.request.pages[:count]
    return tables
