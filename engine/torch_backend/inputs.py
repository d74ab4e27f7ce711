"""A batch as the tensors that layers in torch read; rows are grouped for attention by the length of what they see."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from engine.batch import Batch
from engine.block_pool import NULL_PAGE
from kernels.ops import KEY_CHUNK


@dataclass(frozen=True, slots=True)
class AttentionGroup:
    """Rows start:stop of the batch, seen as [sequences, rows of each], and the pages that they look into.

    `first` and `last` count from the first position of the sequence's first page here, which is a multiple of 64: what
    lies before a sliding window is left out.
    """

    start: int
    stop: int
    tables: Tensor  # int64 [sequences, pages]
    first: Tensor | None  # int64 [sequences, rows of each]: the first position that a row sees; None: all from 0
    last: Tensor  # int64 [sequences, rows of each]: the last one, its own


@dataclass(frozen=True, slots=True)
class Inputs:
    """One step on one device. `groups` are those of each window that some layer has; None is the whole context."""

    token_ids: Tensor  # int64 [rows]
    positions: Tensor  # int64 [rows]
    slots: Tensor  # int64 [rows]
    groups: Mapping[int | None, tuple[AttentionGroup, ...]]


def inputs_of(batch: Batch, page_size: int, windows: Iterable[int | None], device: torch.device) -> Inputs:
    """The same step as tensors: chunks of one row in groups of similar length, every other chunk a group of its own."""
    spans = list(_spans(batch))
    groups = {
        window: tuple(_group(batch, first, past, page_size, window, device) for first, past in spans)
        for window in windows
    }
    return Inputs(_on(batch.token_ids, device), _on(batch.positions, device), _on(batch.slots, device), groups)


def _spans(batch: Batch) -> Iterator[tuple[int, int]]:
    """Chunks first:past of each group; one of single rows is cut where its longest would double its padding."""
    chunks = batch.chunks
    first = 0
    while first < len(chunks):
        past = first + 1
        if chunks[first].length == 1:
            limit = 2 * max(chunks[first].end, KEY_CHUNK)
            while past < len(chunks) and chunks[past].length == 1 and chunks[past].end <= limit:
                past += 1
        yield first, past
        first = past


def _group(
    batch: Batch, first: int, past: int, page_size: int, window: int | None, device: torch.device
) -> AttentionGroup:
    """Chunks first:past, which are equally long."""
    rows = np.flatnonzero((batch.row_chunk >= first) & (batch.row_chunk < past))
    start, stop = int(rows[0]), int(rows[-1]) + 1
    last = batch.positions[start:stop].reshape(past - first, -1)
    if window is None:
        tables = _pages(batch.tables[first:past], np.zeros(past - first, np.int64), int(last.max()) + 1, page_size)
        return AttentionGroup(start, stop, _on(tables, device), None, _on(last, device))
    seen = np.maximum(last - window + 1, 0)
    unit = max(KEY_CHUNK, page_size)  # both are powers of two
    base = seen.min(axis=1) // unit * unit  # [sequences]
    seen, last = seen - base[:, None], last - base[:, None]
    tables = _pages(batch.tables[first:past], base, int(last.max()) + 1, page_size)
    return AttentionGroup(start, stop, _on(tables, device), _on(seen, device), _on(last, device))


def _pages(tables: NDArray[np.int64], base: NDArray[np.int64], keys: int, page_size: int) -> NDArray[np.int64]:
    """The pages of `keys` positions from `base` of each sequence, in whole chunks; null pages behind the last."""
    count = -(-(-(-keys // KEY_CHUNK) * KEY_CHUNK) // page_size)
    at = base[:, None] // page_size + np.arange(count)  # [sequences, pages]
    past = at >= tables.shape[1]
    return np.where(past, NULL_PAGE, np.take_along_axis(tables, np.where(past, 0, at), axis=1))


def _on(values: NDArray[np.int64], device: torch.device) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(values)).to(device)
