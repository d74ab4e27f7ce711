"""A batch as the tensors that layers in torch read; rows are grouped for attention by the length of what they see."""

from collections.abc import Iterator
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
    """Rows start:stop of the batch, seen as [sequences, rows of each]; tables int64 [sequences, pages]."""

    start: int
    stop: int
    tables: Tensor
    last: Tensor  # int64 [sequences, rows of each]: the last position that a row sees, its own


@dataclass(frozen=True, slots=True)
class Inputs:
    """One step on one device."""

    token_ids: Tensor  # int64 [rows]
    positions: Tensor  # int64 [rows]
    slots: Tensor  # int64 [rows]
    groups: tuple[AttentionGroup, ...]


def inputs_of(batch: Batch, page_size: int, device: torch.device) -> Inputs:
    """The same step as tensors: chunks of one row in groups of similar length, every other chunk a group of its own."""
    lengths = [chunk.length for chunk in batch.chunks]
    groups = []
    start = 0
    for first, past in _spans(batch, lengths):
        stop = start + sum(lengths[first:past])
        last = batch.positions[start:stop].reshape(past - first, -1)
        tables = _whole_chunks(batch.tables[first:past], int(last.max()) + 1, page_size)
        groups.append(AttentionGroup(start, stop, _on(tables, device), _on(last, device)))
        start = stop
    return Inputs(_on(batch.token_ids, device), _on(batch.positions, device), _on(batch.slots, device), tuple(groups))


def _spans(batch: Batch, lengths: list[int]) -> Iterator[tuple[int, int]]:
    """Chunks first:past of each group; one of single rows is cut where its longest would double its padding."""
    first = 0
    while first < len(lengths):
        past = first + 1
        if lengths[first] == 1:
            limit = 2 * max(batch.chunks[first].end, KEY_CHUNK)
            while past < len(lengths) and lengths[past] == 1 and batch.chunks[past].end <= limit:
                past += 1
        yield first, past
        first = past


def _whole_chunks(tables: NDArray[np.int64], keys: int, page_size: int) -> NDArray[np.int64]:
    """As many pages as whole chunks of keys need, null pages behind the last."""
    width = -(-(-(-keys // KEY_CHUNK) * KEY_CHUNK) // page_size)
    missing = max(0, width - tables.shape[1])
    return np.pad(tables[:, :width], ((0, 0), (0, missing)), constant_values=NULL_PAGE)


def _on(values: NDArray[np.int64], device: torch.device) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(values)).to(device)
