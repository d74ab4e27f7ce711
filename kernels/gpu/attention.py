"""How paged attention is cut into programs, and its launch: one for prefill, decode and verify rows together.

The formula, and why no border leaves a trace, stands in kernels/reference/paged_attention.py, what a program does in
attention_programs.py.

Which bits depend on what:

    int8 pages   by construction on nothing: every dot product is int8 x int8 -> int32 and every sum inside a chunk is
                 whole, so tile sizes, warps and the instruction (mma.sync or wgmma) are free. The merges of chunks and
                 segments are elementwise and in a fixed order.
    float pages  on the order of additions inside one dot product, which is the same for every row of a tile as long as
                 its shape over K (head_dim, 64 keys) and the instruction stay the same. Tiles of fewer than 64 rows are
                 always mma.sync; so all float tiles are of 16 or 32 rows, whatever the batch holds.
"""

from dataclasses import dataclass
from typing import Final

import torch
import triton
from torch import Tensor

from kernels.gpu.arithmetic import interpreted
from kernels.gpu.attention_programs import attend_segments, merge_segments
from kernels.reference.activation import LOG2_E
from kernels.reference.paged_attention import SEGMENT_KEYS, attention_workspace


@dataclass(frozen=True, slots=True)
class Tile:
    """How one launch is cut: `lines` (rows x query heads of a KV head) a program, over `splits` programs' segments."""

    lines: int
    warps: int
    stages: int
    splits: int


# Programs that fill the largest GPUs twice (132 multiprocessors); fewer are split over segments of keys.
_ENOUGH_PROGRAMS: Final = 264
_FEWEST_LINES: Final = 16
# 64 MB of partial results, which a caller without a workspace may be charged.
_MOST_FLOATS: Final = 2**24
# head_dim, rounded up to a power of two -> lines of a prefill tile, stages; what is wider takes the narrowest tiles.
# 64 keys and values are 32 kB of int8 at 256 wide and 64 kB of float16: within Hopper's 227 kB at these stages.
_INT8_TILES: Final = {64: (64, 3), 128: (64, 3), 256: (32, 2)}
_FLOAT_TILES: Final = {64: (32, 3), 128: (32, 3), 256: (32, 2)}
_WIDER: Final = (_FEWEST_LINES, 2)


def paged_attention(
    query: Tensor,
    kv_pages: Tensor,
    kv_scales: Tensor | None,
    row_starts: Tensor,
    context_lens: Tensor,
    block_tables: Tensor,
    score_scale: float,
    window: int = 0,
    out: Tensor | None = None,
    workspace: Tensor | None = None,
) -> Tensor:
    tile = choose_tile(query, kv_pages, block_tables, workspace)
    return attend(
        query, kv_pages, kv_scales, row_starts, context_lens, block_tables, score_scale, window, out, workspace, tile
    )


def choose_tile(query: Tensor, kv_pages: Tensor, block_tables: Tensor, workspace: Tensor | None) -> Tile:
    """From shapes alone, so that a captured graph replays what an eager step runs. No choice changes a bit."""
    rows, heads, head_dim = query.shape
    kv_heads, page_size = kv_pages.shape[2:4]
    sequences, pages = block_tables.shape
    tiles = _INT8_TILES if kv_pages.dtype == torch.int8 else _FLOAT_TILES
    width = _width(head_dim)
    prefill, stages = tiles.get(width, _WIDER)
    group = heads // kv_heads
    average = -(-rows // max(sequences, 1)) * group
    lines = max(min(max(_FEWEST_LINES, triton.next_power_of_2(average)), prefill), triton.next_power_of_2(group))
    segments = -(-pages * page_size // SEGMENT_KEYS)
    splits = min(max(1, segments), -(-_ENOUGH_PROGRAMS // max(1, _tiles(rows, sequences, lines // group) * kv_heads)))
    room = _MOST_FLOATS if workspace is None else workspace.numel()
    if attention_workspace(rows, heads, head_dim, pages * page_size) > room:
        splits = 1
    # With fewer warps the two accumulators of a larger tile spill out of the registers.
    warps = 8 if lines > _FEWEST_LINES and width > 64 else 4
    return Tile(lines, warps, stages, splits)


def _width(head_dim: int) -> int:
    """Columns of a tile: a power of two, and no fewer than integer dot products take."""
    return max(64, int(triton.next_power_of_2(head_dim)))


def _tiles(rows: int, sequences: int, tile_rows: int) -> int:
    """At least as many tiles as ragged rows need: sequence s owns tiles from row_starts[s] // tile_rows + s on."""
    return rows // tile_rows + sequences


def attend(
    query: Tensor,
    kv_pages: Tensor,
    kv_scales: Tensor | None,
    row_starts: Tensor,
    context_lens: Tensor,
    block_tables: Tensor,
    score_scale: float,
    window: int,
    out: Tensor | None,
    workspace: Tensor | None,
    tile: Tile,
) -> Tensor:
    """`paged_attention` cut in a given way."""
    rows, heads, head_dim = query.shape
    kv_heads, page_size = kv_pages.shape[2:4]
    sequences, pages = block_tables.shape
    segments = -(-pages * page_size // SEGMENT_KEYS)
    if out is None:
        out = torch.empty(query.shape, dtype=query.dtype, device=query.device)
    if workspace is None:
        floats = attention_workspace(rows, heads, head_dim, pages * page_size) if tile.splits > 1 else 0
        workspace = torch.empty(floats, dtype=torch.float32, device=query.device)
    if rows == 0 or sequences == 0:
        return out
    shape = {
        "heads": heads,
        "head_dim": head_dim,
        "width": _width(head_dim),
        "sequence_slots": triton.next_power_of_2(sequences),
    }
    attend_segments[(_tiles(rows, sequences, tile.lines // (heads // kv_heads)), kv_heads, tile.splits)](
        query, kv_pages, kv_scales, row_starts, context_lens, block_tables, out, workspace,
        rows, sequences, pages, segments, query.stride(0) // head_dim, window, score_scale * LOG2_E,
        **shape, kv_heads=kv_heads, page_size=page_size, lines=tile.lines, int8=kv_scales is not None,
        splits_keys=tile.splits > 1, widen=interpreted(),
        num_warps=tile.warps, num_stages=tile.stages, enable_fp_fusion=False,
    )  # fmt: skip
    if tile.splits > 1:
        merge_segments[(rows, heads)](
            workspace, row_starts, context_lens, out, rows, sequences, segments, window,
            **shape, num_warps=1, enable_fp_fusion=False,
        )  # fmt: skip
    return out
