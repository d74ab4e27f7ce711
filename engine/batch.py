"""Turns a plan into the arrays of one step: token ids, positions, block tables; decides nothing, needs no torch.

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
    row_chunk: NDArray[np.int64]  # [rows]: which chunk, and so which block table
    tables: NDArray[np.int64]  # [chunks, pages]
    sampled_rows: NDArray[np.int64]  # [chunks that sample]
    page_size: int

    @property
    def slots(self) -> NDArray[np.int64]:
        """Where each row's key and value belong: page * page_size + offset in page.  # [rows]"""
        pages = self.tables[self.row_chunk, self.positions // self.page_size]
        return pages * self.page_size + self.positions % self.page_size


def build_batch(chunks: Sequence[ScheduledChunk], page_size: int) -> Batch:
    """The arrays of one step. Each chunk's request already owns the pages up to the chunk's end.

    Lists first, and of each one array: behind a step, with its weights in the caches, a call of numpy costs more than
    the numbers of a dozen rows.
    """
    single = sorted((chunk for chunk in chunks if chunk.length == 1), key=lambda chunk: chunk.end)
    ordered = (*single, *(chunk for chunk in chunks if chunk.length > 1))
    token_ids: list[int] = []
    positions: list[int] = []
    row_chunk: list[int] = []
    sampled_rows: list[int] = []
    for number, chunk in enumerate(ordered):
        token_ids += chunk.request.token_ids(chunk.start, chunk.end)
        positions += range(chunk.start, chunk.end)
        row_chunk += [number] * chunk.length
        if chunk.samples:
            sampled_rows.append(len(positions) - 1)
    rows = np.array((token_ids, positions, row_chunk), dtype=np.int64)
    return Batch(
        chunks=ordered,
        token_ids=rows[0],
        positions=rows[1],
        row_chunk=rows[2],
        tables=_tables(ordered, page_size),
        sampled_rows=np.array(sampled_rows, dtype=np.int64),
        page_size=page_size,
    )


def _tables(ordered: Sequence[ScheduledChunk], page_size: int) -> NDArray[np.int64]:
    """[chunks, pages]: as far as each chunk sees, filled up with the null page."""
    needed = [-(-chunk.end // page_size) for chunk in ordered]
    width = max(needed)
    tables: list[int] = []
    for chunk, count in zip(ordered, needed, strict=True):
        tables += chunk.request.pages[:count]
        tables += [NULL_PAGE] * (width - count)
    return np.array(tables, dtype=np.int64).reshape(len(ordered), width)
