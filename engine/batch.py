"""Turns a plan into the tensors of one step: token ids, positions, slots, block tables; decides nothing.

Rows of one step, in the order of the batch:

    | decode rows, grouped by similar length |  chunk A: its rows  |  chunk B: its rows  | ...
      one group = [sequences, 1 row]            one group = [1 sequence, rows]
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from engine.block_pool import NULL_PAGE
from engine.scheduler import ScheduledChunk
from kernels.ops import KEY_CHUNK


@dataclass(frozen=True, slots=True)
class PageLayout:
    """`count` pages (the null page among them) of `size` tokens."""

    count: int
    size: int


@dataclass(frozen=True, slots=True)
class AttentionGroup:
    """Rows start:stop of the batch, seen as [sequences, rows of each]; tables int64 [sequences, pages]."""

    start: int
    stop: int
    tables: Tensor
    last: Tensor  # int64 [sequences, rows of each]: the last position that a row sees, its own


@dataclass(frozen=True, slots=True)
class Batch:
    """One step. `chunks` are in the order of their rows; `sampled_rows` are the last rows of chunks that sample."""

    chunks: tuple[ScheduledChunk, ...]
    token_ids: Tensor  # int64 [rows]
    positions: Tensor  # int64 [rows]
    slots: Tensor  # int64 [rows]
    groups: tuple[AttentionGroup, ...]
    sampled_rows: Tensor  # int64 [chunks that sample]


def build_batch(chunks: Sequence[ScheduledChunk], page_size: int, device: torch.device) -> Batch:
    """The tensors of one step. Each chunk's request already owns the pages up to the chunk's end."""
    single = sorted((chunk for chunk in chunks if chunk.length == 1), key=lambda chunk: chunk.end)
    several = [chunk for chunk in chunks if chunk.length > 1]
    ordered = (*single, *several)
    token_ids: list[int] = []
    positions: list[int] = []
    slots: list[int] = []
    sampled: list[int] = []
    rows = 0
    for chunk in ordered:
        request, span = chunk.request, range(chunk.start, chunk.end)
        token_ids += request.token_ids(chunk.start, chunk.end)
        positions += span
        slots += [request.pages[at // page_size] * page_size + at % page_size for at in span]
        rows += chunk.length
        if chunk.samples:
            sampled.append(rows - 1)
    return Batch(
        chunks=ordered,
        token_ids=_indices(token_ids, device),
        positions=_indices(positions, device),
        slots=_indices(slots, device),
        groups=(*_decode_groups(single, page_size, device), *_chunk_groups(several, len(single), page_size, device)),
        sampled_rows=_indices(sampled, device),
    )


def _decode_groups(single: Sequence[ScheduledChunk], page_size: int, device: torch.device) -> Iterable[AttentionGroup]:
    """Chunks of one row, shortest first, cut where the longest of a group would double its padding."""
    start = 0
    while start < len(single):
        limit = 2 * max(single[start].end, KEY_CHUNK)
        stop = start
        while stop < len(single) and single[stop].end <= limit:
            stop += 1
        members = single[start:stop]
        last = _indices([chunk.start for chunk in members], device).unsqueeze(1)  # [sequences, 1]
        yield AttentionGroup(start, stop, _tables(members, page_size, device), last)
        start = stop


def _chunk_groups(
    several: Sequence[ScheduledChunk], start: int, page_size: int, device: torch.device
) -> Iterable[AttentionGroup]:
    for chunk in several:
        last = torch.arange(chunk.start, chunk.end, device=device).unsqueeze(0)  # [1, rows]
        yield AttentionGroup(start, start + chunk.length, _tables([chunk], page_size, device), last)
        start += chunk.length


def _tables(members: Sequence[ScheduledChunk], page_size: int, device: torch.device) -> Tensor:
    """int64 [sequences, pages]: as far as each chunk sees, filled up with the null page to whole chunks of keys."""
    longest = max(chunk.end for chunk in members)
    keys = -(-longest // KEY_CHUNK) * KEY_CHUNK
    width = -(-keys // page_size)
    needed = [-(-chunk.end // page_size) for chunk in members]
    rows = [
        [*chunk.request.pages[:count], *[NULL_PAGE] * (width - count)]
        for chunk, count in zip(members, needed, strict=True)
    ]
    return torch.tensor(rows, dtype=torch.int64, device=device)


def _indices(values: Sequence[int], device: torch.device) -> Tensor:
    return torch.tensor(values, dtype=torch.int64, device=device)
