"""The region of a step that reads the cache: every query head over its sequence's blocks, and quantised again."""

from typing import Any

from kernels.cpu.attention import BLOCK, attend
from kernels.cpu.compiling import compiled, merged
from kernels.cpu.matmul import GROUP
from kernels.cpu.rows import quantize_row
from kernels.cpu.simd import load_float, load_index, load_int
from kernels.cpu.team import next_item, span


@compiled
def attention(share: Any, layer: Any, model: Any, step: Any, room: Any) -> None:
    """Some query heads of one row: all that share a key head, or one where that would leave threads without work."""
    rows, shared = share.past - share.first, model.heads // model.kv_heads
    at_once = shared if rows * model.kv_heads >= 8 * share.pieces else 1
    of_row = model.heads // at_once
    begin, end = span(share, rows * of_row)
    item = begin + next_item(share.counter)
    while item < end:
        row, first = share.first + item // of_row, (item % of_row) * at_once
        for head in range(first, first + at_once):
            _attend_head(share.own, layer, row, head, shared, head == first, model, step, room)
        item = begin + next_item(share.counter)


@merged
def _attend_head(
    own: Any, layer: Any, row: Any, head: Any, shared: Any, cold: Any, model: Any, step: Any, room: Any
) -> None:
    """One query head of one row, its result quantised where the output product reads it."""
    padded = model.padded_head
    last, window = load_index(step.positions + 8 * row), load_index(model.window + 8 * layer)
    first = max(0, last + 1 - window) if window else 0
    slot = layer * model.blocks * model.kv_heads + head // shared
    place, scales = slot * padded * BLOCK, 4 * slot * BLOCK
    cache = (model.keys + place, model.key_scales + scales, model.values + place, model.value_scales + scales)
    apart = (model.kv_heads * padded * BLOCK, 4 * model.kv_heads * BLOCK)
    table = step.tables + 8 * load_index(step.sequences + 8 * row) * step.table
    query, to = row * model.heads + head, own + room.head_at
    attend(
        room.query + query * padded,
        load_float(room.query_scales + 4 * query),
        load_int(room.query_starts + 4 * query),
        padded,
        cache,
        apart,
        table,
        first,
        last,
        own + room.scores_at,
        to,
        cold,
    )
    group = row * room.middle_groups + head * (padded // GROUP)
    quantize_row(
        to, padded, room.middle + GROUP * group, room.middle_scales + 4 * group, room.middle_starts + 4 * group
    )
