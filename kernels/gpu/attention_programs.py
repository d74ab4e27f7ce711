"""What one program of paged attention does: a tile of one sequence's rows with all query heads of one KV head, so that
keys are read once for them; knows nothing of how many programs there are.

The formula, and why no border leaves a trace, stands in kernels/reference/paged_attention.py.
"""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls, allow-untyped-decorators
from typing import Final

import triton
import triton.language as tl

from kernels.gpu.arithmetic import exp2, finite_or_zero, round_even
from kernels.reference.paged_attention import DIVISOR_STEPS, KEY_CHUNK, NO_SCORE, SEGMENT_KEYS, WHOLE_LEVELS
from kernels.reference.quantize import SMALLEST_MAX

_CHUNK: Final = tl.constexpr(KEY_CHUNK)
_SEGMENT: Final = tl.constexpr(SEGMENT_KEYS)
_NO_SCORE: Final = tl.constexpr(NO_SCORE)
_LEVELS: Final = tl.constexpr(float(WHOLE_LEVELS))
_STEPS: Final = tl.constexpr(float(DIVISOR_STEPS))
_SMALLEST_MAX: Final = tl.constexpr(SMALLEST_MAX)
_COUNTS: Final = ["rows", "sequences", "table_width", "segments", "query_heads", "window"]


@triton.jit(do_not_specialize=_COUNTS)
def attend_segments(
    query, kv_pages, kv_scales, row_starts, context_lens, block_tables, out, workspace,
    rows, sequences, table_width, segments, query_heads, window, score_factor,
    heads: tl.constexpr, head_dim: tl.constexpr, width: tl.constexpr, sequence_slots: tl.constexpr,
    kv_heads: tl.constexpr, page_size: tl.constexpr, lines: tl.constexpr, int8: tl.constexpr,
    splits_keys: tl.constexpr, widen: tl.constexpr,
):  # fmt: skip
    """Line = row in the tile * group + query head of the KV head. Segments: split, split + number of splits, ..."""
    group: tl.constexpr = heads // kv_heads
    tile_rows: tl.constexpr = lines // group
    tile, kv_head, split = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    sequence = _sequence_of_tile(row_starts, tile, sequences, tile_rows, sequence_slots)
    start = tl.load(row_starts + sequence)
    count = tl.load(row_starts + sequence + 1) - start
    first = (tile - start // tile_rows - sequence) * tile_rows
    if first >= count:
        return

    line = tl.arange(0, lines)
    row = first + line // group  # of the sequence's rows in this step
    live = (line < tile_rows * group) & (row < count)
    head = kv_head * group + line % group
    before = tl.load(context_lens + sequence) - count
    position = before + row
    lowest = tl.where(window > 0, position - window + 1, 0)
    past = before + tl.minimum(first + tile_rows, count)
    begin = tl.where(window > 0, tl.maximum(before + first - window + 1, 0), 0)

    dim = tl.arange(0, width)
    inside = live[:, None] & (dim < head_dim)[None, :]
    q_offsets = ((start + row).to(tl.int64) * query_heads + head)[:, None] * head_dim + dim[None, :]
    q = tl.load(query + q_offsets, mask=inside, other=0.0).to(tl.float32)
    # NaN or infinity in a query makes its whole head NaN, not a number that looks like any other.
    broken = tl.sum(q * 0.0, 1)  # [lines]: 0 or NaN
    q = finite_or_zero(q)
    if int8:
        largest = tl.maximum(tl.max(tl.abs(q), 1), _SMALLEST_MAX)
        q_high, q_low = _digits(round_even(q * tl.math.div_rn(_LEVELS, largest)[:, None]))
        factor = tl.math.div_rn(largest, _LEVELS) * score_factor  # [lines]
    else:
        q_high = _operand(q.to(kv_pages.dtype.element_ty), widen)
        q_low = q_high
        factor = tl.zeros([lines], tl.float32) + score_factor

    table = block_tables + sequence.to(tl.int64) * table_width
    pages = kv_pages + kv_head * page_size * head_dim
    scales = kv_scales + kv_head * page_size if int8 else kv_scales
    total_m = tl.full([lines], _NO_SCORE, tl.float32)
    total_d = tl.zeros([lines], tl.float32)
    total_o = tl.zeros([lines, width], tl.float32)
    for segment in range(begin // _SEGMENT + split, tl.cdiv(past, _SEGMENT), tl.num_programs(2)):
        m = tl.full([lines], _NO_SCORE, tl.float32)
        d = tl.zeros([lines], tl.float32)
        o = tl.zeros([lines, width], tl.float32)
        from_key = tl.maximum(segment * _SEGMENT, begin // _CHUNK * _CHUNK)
        for chunk in range(from_key, tl.minimum((segment + 1) * _SEGMENT, past), _CHUNK):
            chunk_m, chunk_d, chunk_o = _attend_chunk(
                q_high, q_low, factor, pages, scales, table, chunk, past, position, lowest, live,
                head_dim, width, kv_heads, page_size, int8, widen,
            )  # fmt: skip
            m, d, o = _merged(m, d, o, chunk_m, chunk_d, chunk_o)
        if splits_keys:
            slot = ((start + row).to(tl.int64) * heads + head) * segments + segment
            stats = workspace + rows.to(tl.int64) * heads * segments * head_dim
            tl.store(workspace + slot[:, None] * head_dim + dim[None, :], o, mask=inside)
            tl.store(stats + 2 * slot, m, mask=live)
            tl.store(stats + 2 * slot + 1, d + broken, mask=live)
        else:
            total_m, total_d, total_o = _merged(total_m, total_d, total_o, m, d, o)
    if not splits_keys:
        divisor = tl.where(live, total_d, 1.0) + broken
        y = tl.math.div_rn(total_o, divisor[:, None])
        o_offsets = ((start + row).to(tl.int64) * heads + head)[:, None] * head_dim + dim[None, :]
        tl.store(out + o_offsets, y.to(out.dtype.element_ty), mask=inside)


@triton.jit
def _attend_chunk(
    q_high, q_low, factor, pages, scales, table, chunk, past, position, lowest, live,
    head_dim: tl.constexpr, width: tl.constexpr, kv_heads: tl.constexpr, page_size: tl.constexpr,
    int8: tl.constexpr, widen: tl.constexpr,
):  # fmt: skip
    """m, d [lines] and o [lines, width] of one chunk of keys."""
    key = chunk + tl.arange(0, _CHUNK)
    held = key < past
    page = tl.load(table + key // page_size, mask=held, other=0).to(tl.int64)
    dim = tl.arange(0, width)
    offsets = (page * (2 * kv_heads * page_size) + key % page_size)[:, None] * head_dim + dim[None, :]
    inside = held[:, None] & (dim < head_dim)[None, :]
    k = tl.load(pages + offsets, mask=inside, other=0)  # [_CHUNK, width]
    v = tl.load(pages + kv_heads * page_size * head_dim + offsets, mask=inside, other=0)
    visible = (key[None, :] <= position[:, None]) & (key[None, :] >= lowest[:, None]) & live[:, None]
    if int8:
        scale_at = page * (2 * kv_heads * page_size) + key % page_size
        k_scale = tl.load(scales + scale_at, mask=held, other=0.0)
        v_scale = tl.load(scales + kv_heads * page_size + scale_at, mask=held, other=0.0)
        scores = _whole_dot(q_high, q_low, tl.trans(k)) * k_scale[None, :] * factor[:, None]
    else:
        scores = _float_dot(q_high, tl.trans(_operand(k, widen)), widen) * factor[:, None]
    scores = tl.where(visible, scores, _NO_SCORE)
    m = tl.max(scores, 1)
    e = tl.where(visible, exp2(scores - m[:, None]), 0.0)
    d = tl.sum((e * _STEPS).to(tl.int32), 1).to(tl.float32) * (1.0 / _STEPS)
    if int8:
        weights = e * v_scale[None, :]
        largest = tl.maximum(tl.max(weights, 1), _SMALLEST_MAX)
        high, low = _digits(round_even(weights * tl.math.div_rn(_LEVELS, largest)[:, None]))
        o = _whole_dot(high, low, v) * tl.math.div_rn(largest, _LEVELS)[:, None]
    else:
        o = _float_dot(_operand(e.to(v.dtype), widen), _operand(v, widen), widen)
    return m, d, o


@triton.jit
def _merged(m, d, o, m_after, d_after, o_after):
    highest = tl.maximum(m, m_after)
    old, new = exp2(m - highest), exp2(m_after - highest)
    return highest, d * old + d_after * new, o * old[:, None] + o_after * new[:, None]


@triton.jit
def _digits(whole):
    """Whole float32 up to 16,256 in size -> two int8 digits: whole = 128 * high + low."""
    number = whole.to(tl.int32)
    high = (number + 64) >> 7
    return high.to(tl.int8), (number - (high << 7)).to(tl.int8)


@triton.jit
def _whole_dot(high, low, other):
    """(128 * high + low) . other, exact in int32 and rounded once, to float32."""
    product = tl.dot(high, other, out_dtype=tl.int32)
    return tl.dot(low, other, acc=product << 7, out_dtype=tl.int32).to(tl.float32)


@triton.jit
def _operand(x, widen: tl.constexpr):
    """The interpreter multiplies bfloat16 wrongly, and cuts float32 sums differently by shape: it gets float64."""
    if widen:
        return x.to(tl.float32).to(tl.float64)
    return x


@triton.jit
def _float_dot(a, b, widen: tl.constexpr):
    if widen:
        return tl.dot(a, b, out_dtype=tl.float64).to(tl.float32)
    return tl.dot(a, b)


@triton.jit
def _sequence_of_tile(row_starts, tile, sequences, tile_rows: tl.constexpr, sequence_slots: tl.constexpr):
    """The last sequence whose first tile is not behind this one; one without rows owns a tile too, and leaves it."""
    index = tl.arange(0, sequence_slots)
    first_tile = tl.load(row_starts + index, mask=index < sequences, other=0) // tile_rows + index
    return tl.sum(((first_tile <= tile) & (index < sequences)).to(tl.int32), 0) - 1


@triton.jit(do_not_specialize=["rows", "sequences", "segments", "window"])
def merge_segments(
    workspace, row_starts, context_lens, out, rows, sequences, segments, window,
    heads: tl.constexpr, head_dim: tl.constexpr, width: tl.constexpr, sequence_slots: tl.constexpr,
):  # fmt: skip
    """One row and head: its segments' partial results, by position."""
    row, head = tl.program_id(0), tl.program_id(1)
    if row >= tl.load(row_starts + sequences):
        return
    index = tl.arange(0, sequence_slots)
    ends = tl.load(row_starts + index + 1, mask=index < sequences, other=0)
    sequence = tl.sum(((ends <= row) & (index < sequences)).to(tl.int32), 0)
    position = tl.load(context_lens + sequence) - tl.load(row_starts + sequence + 1) + row
    begin = tl.where(window > 0, tl.maximum(position - window + 1, 0), 0)

    dim = tl.arange(0, width)
    slot = (row.to(tl.int64) * heads + head) * segments
    stats = workspace + rows.to(tl.int64) * heads * segments * head_dim
    m = tl.full([1], _NO_SCORE, tl.float32)
    d = tl.zeros([1], tl.float32)
    o = tl.zeros([1, width], tl.float32)
    for segment in range(begin // _SEGMENT, position // _SEGMENT + 1):
        at = slot + segment
        segment_o = tl.load(workspace + at * head_dim + dim, mask=dim < head_dim, other=0.0)[None, :]
        segment_m = tl.load(stats + 2 * at) + tl.zeros([1], tl.float32)
        segment_d = tl.load(stats + 2 * at + 1) + tl.zeros([1], tl.float32)
        m, d, o = _merged(m, d, o, segment_m, segment_d, segment_o)
    y = tl.math.div_rn(o, d[:, None])
    row_out = out + (row.to(tl.int64) * heads + head) * head_dim
    tl.store(row_out + dim[None, :], y.to(out.dtype.element_ty), mask=(dim < head_dim)[None, :])
