"""One step of a whole decoder as a single compiled function that several threads walk through together.

Between two barriers lies a region; its items are independent of each other and taken one by one. Of a step with many
rows each thread takes a part of its own first, so that they stay in its core's cache, and then helps the others:

    norm      some rows       residual row -> norm -> int8 groups
    qkv       a head          its product for all rows; bias, norm, rotation; queries kept, keys and values into blocks
    attend    heads of a row  over its blocks -> int8 groups
    o         64 columns      product for all rows, added to the residual
    norm      some rows
    gate_up   64 columns      both products for all rows; activation -> int8 group
    down      64 columns      product for all rows, added to the residual

Everything is given by address (`array.ctypes.data`): tuples of whole numbers compile and travel in a tenth of the time
that tuples of arrays take. The caller keeps the arrays alive. Widths are padded to multiples of 64 with zeros.
"""

from typing import Any, Final, NamedTuple

import numpy as np
from numba import njit

from kernels.cpu.attention import BLOCK, attend
from kernels.cpu.heads import gather_head, keep_key, keep_query, keep_value, norm_head, rotate_head
from kernels.cpu.matmul import GROUP, call_product
from kernels.cpu.rows import add_norm, gate_quantize, norm_quantize, quantize_row
from kernels.cpu.simd import load_byte, load_float, load_floats, load_index, load_int, store_float, store_floats
from kernels.cpu.team import barrier, counter, next_item

REGIONS_PER_LAYER: Final = 7
STRIP: Final = 48
"""Rows whose products stay in a core's nearest cache until they are used."""
_ROWS_APART: Final = STRIP  # of a thread, at least, or its weights would be read for too few
_ROWS_OF_NORM: Final = 4  # in one item: one row alone is soon done
_TILE: Final = GROUP * GROUP  # bytes of packed weights for 64 outputs and one group of inputs


class Model(NamedTuple):
    """Sizes, then addresses. Packed tiles are uint8 [layers, tiles, groups * 4096] (matmul.py); norms, biases and
    scales float32 [layers, width]; those that a model does not have are 0."""

    product: int  # matmul.product_tile
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    padded_head: int
    hidden: int
    padded_hidden: int
    padded_ffn: int
    output_tiles: int
    activation: int  # rows.SILU or rows.GELU_TANH
    embedding: int  # [tiles, groups * 4096] of the vocabulary; read row by row
    embedding_scale: int  # [64 * tiles]
    output: int
    output_scale: int
    final_norm: int  # [hidden]
    attention_norm: int
    qkv: int  # heads, then key heads, then value heads, each padded_head / 64 tiles
    qkv_scale: int
    qkv_bias: int
    q_norm: int
    k_norm: int
    o: int
    o_scale: int
    attention_post_norm: int
    mlp_norm: int
    gate_up: int  # all tiles of gate, then all of up
    gate_up_scale: int
    down: int
    down_scale: int
    mlp_post_norm: int
    cos: int  # float32 [rotaries, positions, head_dim / 2]
    sin: int
    rotary: int  # int64 [layers]: where a layer's cosines begin, in bytes from the first
    window: int  # int64 [layers]: positions that a row sees, 0: all
    blocks: int  # how many, of each layer
    keys: int  # uint8 [layers, blocks, kv_heads, padded_head * 16] (attention.py)
    key_scales: int  # float32 [layers, blocks, kv_heads, 16]
    values: int  # int8, as keys
    value_scales: int


class Reals(NamedTuple):
    eps: float
    score_scale: float  # with log2 e in it
    embedding_scale: float


class Step(NamedTuple):
    """What a step computes: tokens, their positions, and where their sequences' blocks lie."""

    rows: int
    token_ids: int  # int64 [rows]
    positions: int  # int64 [rows]
    sequences: int  # int64 [rows]
    tables: int  # int64 [sequences, table]
    table: int  # blocks of one table


class Room(NamedTuple):
    """Working memory, kept from step to step. `x` is the residual, and the result."""

    x: int  # float32 [rows, hidden]
    y: int  # float32 [rows, hidden]: outputs that a norm comes before the residual
    inputs: int  # int8 [rows, hidden]
    input_scales: int  # float32 [rows, hidden / 64]
    input_starts: int  # int32 [rows, hidden / 64]
    middle: int  # int8 [rows, middle_groups * 64]: the same behind attention, and behind the activation
    middle_scales: int
    middle_starts: int
    middle_groups: int
    query: int  # int8 [rows, heads, head_dim]
    query_scales: int  # float32 [rows, heads]
    query_starts: int  # int32 [rows, heads]
    own: int  # bytes of each thread: | tiles | head | bytes of a head | scores |
    own_bytes: int
    head_at: int  # where in them
    whole_at: int
    scores_at: int


class Share(NamedTuple):
    """What a thread works on: items by a counter, of some of a step's rows."""

    counter: int
    first: int
    past: int
    stride: int  # this thread's next item is about so many further
    own: int  # room.own of this thread


@njit(cache=True, nogil=True)
def forward(thread: Any, threads: Any, board: Any, model: Any, reals: Any, step: Any, room: Any) -> None:
    """`room.x` = the residual of every row behind the last layer; all threads of a team call this together."""
    parts = threads if step.rows >= _ROWS_APART * threads else 1
    own = room.own + thread * room.own_bytes
    for layer in range(-1, model.layers + 1):
        for region in range(REGIONS_PER_LAYER):
            for turn in range(parts):
                part = (thread + turn) % parts
                at = counter(board, ((layer + 1) * REGIONS_PER_LAYER + region) * threads + part)
                share = Share(at, step.rows * part // parts, step.rows * (part + 1) // parts, threads // parts, own)
                if layer < 0:
                    if region == 0:
                        _embeddings(share, model, reals, step, room)
                elif layer < model.layers:
                    _layer_region(region, layer, share, model, reals, step, room)
                elif region == 0 and model.mlp_post_norm:
                    before = model.mlp_post_norm + 4 * (layer - 1) * model.padded_hidden
                    _norms(share, model, reals, before, np.int64(0), room)
            if region == 0 or 0 <= layer < model.layers:
                barrier(board, threads)


@njit(cache=True, nogil=True)
def _layer_region(region: Any, layer: Any, share: Any, model: Any, reals: Any, step: Any, room: Any) -> None:
    """The parts of a layer in the order of the table above."""
    # Numba compiles a function once for numbers and again for each number that it is called with.
    none, width = np.int64(0), model.padded_hidden
    if region == 0:
        before = model.mlp_post_norm + 4 * (layer - 1) * width if layer and model.mlp_post_norm else none
        _norms(share, model, reals, before, model.attention_norm + 4 * layer * width, room)
    elif region == 1:
        _queries_keys_values(share, layer, model, reals, step, room)
    elif region == 2:
        _attention(share, layer, model, step, room)
    elif region == 3:
        groups = model.heads * model.padded_head // GROUP
        o = model.o + layer * (width // GROUP) * groups * _TILE
        _project(share, o, model.o_scale + 4 * layer * width, groups, model, room)
    elif region == 4:
        before = model.attention_post_norm + 4 * layer * width if model.attention_post_norm else none
        _norms(share, model, reals, before, model.mlp_norm + 4 * layer * width, room)
    elif region == 5:
        _gate_up(share, layer, model, room)
    else:
        groups = model.padded_ffn // GROUP
        down = model.down + layer * (width // GROUP) * groups * _TILE
        _project(share, down, model.down_scale + 4 * layer * width, groups, model, room)


@njit(cache=True, nogil=True)
def logits(
    thread: Any, threads: Any, board: Any, model: Any, reals: Any, rows: Any, hidden: Any, room: Any, out: Any
) -> None:
    """hidden float32 [rows, padded hidden] -> out float32 [rows, 64 * output_tiles]; all threads call this together."""
    groups = model.padded_hidden // GROUP
    first, second = counter(board, 0), counter(board, 1)
    row = next_item(first)
    while row < rows:
        x = hidden + 4 * row * model.padded_hidden
        _norm_row(model, reals, x, model.final_norm, row, room)
        row = next_item(first)
    barrier(board, threads)
    own = room.own + thread * room.own_bytes
    tile = next_item(second)
    while tile < model.output_tiles:
        at, scale = model.output + tile * groups * _TILE, model.output_scale + 4 * tile * GROUP
        for begin in range(0, rows, STRIP):
            size = min(STRIP, rows - begin)
            _product_of_inputs(model, room, begin, size, at, at + threads * groups * _TILE, own)
            for r in range(size):
                to = out + 4 * ((begin + r) * model.output_tiles + tile) * GROUP
                for i in range(0, 4 * GROUP, 64):
                    store_floats(to + i, load_floats(own + 4 * GROUP * r + i) * load_floats(scale + i))
        tile = next_item(second)
    barrier(board, threads)


@njit(cache=True, nogil=True)
def _embeddings(share: Any, model: Any, reals: Any, step: Any, room: Any) -> None:
    row = share.first + next_item(share.counter)
    while row < share.past:
        _embed(model, reals, load_index(step.token_ids + 8 * row), room.x + 4 * row * model.padded_hidden)
        row = share.first + next_item(share.counter)


@njit(cache=True, nogil=True)
def _embed(model: Any, reals: Any, token: Any, x: Any) -> None:
    """One row of the packed vocabulary, back in order."""
    at = model.embedding + (token // GROUP) * (model.padded_hidden // GROUP) * _TILE + 4 * (token % GROUP)
    scale = load_float(model.embedding_scale + 4 * token)
    factor = np.float32(reals.embedding_scale)
    for i in range(model.padded_hidden):
        whole = (load_byte(at + (i // 4) * 4 * GROUP + i % 4) & 255) - 128
        store_float(x + 4 * i, np.float32(whole) * scale * factor)


@njit(cache=True, nogil=True)
def _norms(share: Any, model: Any, reals: Any, before: Any, weight: Any, room: Any) -> None:
    """Every row: x += norm(y) by the weights `before`, then its norm by `weight` quantised; each where it is not 0."""
    first = share.first + next_item(share.counter) * _ROWS_OF_NORM
    while first < share.past:
        for row in range(first, min(first + _ROWS_OF_NORM, share.past)):
            x, y = room.x + 4 * row * model.padded_hidden, room.y + 4 * row * model.padded_hidden
            if before:
                add_norm(x, y, before, model.hidden, model.padded_hidden, reals.eps)
            if weight:
                _norm_row(model, reals, x, weight, row, room)
        first = share.first + next_item(share.counter) * _ROWS_OF_NORM


@njit(cache=True, nogil=True)
def _norm_row(model: Any, reals: Any, x: Any, weight: Any, row: Any, room: Any) -> None:
    groups = model.padded_hidden // GROUP
    norm_quantize(
        x,
        weight,
        model.hidden,
        model.padded_hidden,
        reals.eps,
        room.inputs + row * model.padded_hidden,
        room.input_scales + 4 * row * groups,
        room.input_starts + 4 * row * groups,
    )


@njit(cache=True, nogil=True)
def _product_of_inputs(model: Any, room: Any, begin: Any, size: Any, tile: Any, ahead: Any, out: Any) -> None:
    """Normed rows begin to begin + size times one packed tile -> float32 [size, 64] at `out`; next is tile `ahead`."""
    groups = model.padded_hidden // GROUP
    beside = 4 * begin * groups
    x, scales, starts = (
        room.inputs + begin * model.padded_hidden,
        room.input_scales + beside,
        room.input_starts + beside,
    )
    call_product(model.product, x, scales, starts, tile, out, size, groups, groups, ahead)


@njit(cache=True, nogil=True)
def _queries_keys_values(share: Any, layer: Any, model: Any, reals: Any, step: Any, room: Any) -> None:
    """One query, key or value head of every row: queries into `room`, keys and values into their blocks."""
    heads, per_head = model.heads + 2 * model.kv_heads, model.padded_head // GROUP
    tile_bytes, own = (model.padded_hidden // GROUP) * _TILE, share.own
    head = next_item(share.counter)
    while head < heads:
        column = (layer * heads + head) * model.padded_head
        bias = model.qkv_bias + 4 * column if model.qkv_bias else 0
        for begin in range(share.first, share.past, STRIP):
            size = min(STRIP, share.past - begin)
            for part in range(per_head):
                tile = model.qkv + (column // GROUP + part) * tile_bytes
                ahead = tile + share.stride * per_head * tile_bytes
                _product_of_inputs(model, room, begin, size, tile, ahead, own + 4 * part * STRIP * GROUP)
            for r in range(size):
                at, to = own + 4 * r * GROUP, own + room.head_at
                gather_head(at, 4 * STRIP * GROUP, model.qkv_scale + 4 * column, bias, model.padded_head, to)
                _keep_head(own, layer, head, begin + r, model, reals, step, room)
        head = next_item(share.counter)


@njit(cache=True, nogil=True)
def _keep_head(own: Any, layer: Any, head: Any, row: Any, model: Any, reals: Any, step: Any, room: Any) -> None:
    """A row's head, gathered: norm and rotation for queries and keys, then to where attention reads it."""
    at, whole, position = own + room.head_at, own + room.whole_at, load_index(step.positions + 8 * row)
    if head < model.heads + model.kv_heads:
        norm = model.q_norm if head < model.heads else model.k_norm
        if norm:
            norm_head(at, norm + 4 * layer * model.padded_head, model.head_dim, model.padded_head, reals.eps)
        angle = load_index(model.rotary + 8 * layer) + 4 * position * (model.head_dim // 2)
        rotate_head(at, model.cos + angle, model.sin + angle, model.head_dim // 2)
    if head < model.heads:
        to = row * model.heads + head
        query, scale, start = (
            room.query + to * model.padded_head,
            room.query_scales + 4 * to,
            room.query_starts + 4 * to,
        )
        keep_query(at, model.padded_head, query, scale, start, np.float32(reals.score_scale))
    else:
        table = step.tables + 8 * load_index(step.sequences + 8 * row) * step.table
        block = layer * model.blocks + load_index(table + 8 * (position // BLOCK))
        slot = block * model.kv_heads + (head - model.heads) % model.kv_heads
        place, scales = slot * model.padded_head * BLOCK, 4 * slot * BLOCK
        if head < model.heads + model.kv_heads:
            keep_key(at, model.padded_head, whole, model.keys + place, model.key_scales + scales, position % BLOCK)
        else:
            keep_value(
                at, model.padded_head, whole, model.values + place, model.value_scales + scales, position % BLOCK
            )


@njit(cache=True, nogil=True)
def _attention(share: Any, layer: Any, model: Any, step: Any, room: Any) -> None:
    """Some query heads of one row: all that share a key head, or one where that would leave threads without work."""
    shared = model.heads // model.kv_heads
    at_once = shared if (share.past - share.first) * model.kv_heads >= 8 * share.stride else 1
    of_row = model.heads // at_once
    item = next_item(share.counter)
    while item < (share.past - share.first) * of_row:
        row, first = share.first + item // of_row, (item % of_row) * at_once
        for head in range(first, first + at_once):
            _attend_head(share.own, layer, row, head, shared, head == first, model, step, room)
        item = next_item(share.counter)


@njit(cache=True, nogil=True)
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


@njit(cache=True, nogil=True)
def _project(share: Any, tiles: Any, scales: Any, groups: Any, model: Any, room: Any) -> None:
    """64 columns of the product behind attention or the MLP's middle, to the residual or to where its norm is."""
    apart, own = model.attention_post_norm != 0, share.own
    tile = next_item(share.counter)
    while tile < model.padded_hidden // GROUP:
        scale = scales + 4 * tile * GROUP
        for begin in range(share.first, share.past, STRIP):
            size = min(STRIP, share.past - begin)
            group = begin * room.middle_groups
            x, beside, starts = (
                room.middle + GROUP * group,
                room.middle_scales + 4 * group,
                room.middle_starts + 4 * group,
            )
            at = tiles + tile * groups * _TILE
            ahead = at + share.stride * groups * _TILE
            call_product(model.product, x, beside, starts, at, own, size, groups, room.middle_groups, ahead)
            for r in range(size):
                to = 4 * ((begin + r) * model.padded_hidden + tile * GROUP)
                for i in range(0, 4 * GROUP, 64):
                    made = load_floats(own + 4 * GROUP * r + i) * load_floats(scale + i)
                    if apart:
                        store_floats(room.y + to + i, made)
                    else:
                        store_floats(room.x + to + i, load_floats(room.x + to + i) + made)
        tile = next_item(share.counter)


@njit(cache=True, nogil=True)
def _gate_up(share: Any, layer: Any, model: Any, room: Any) -> None:
    """64 columns of the MLP's middle for every row, quantised as one group of the next product."""
    tiles, tile_bytes = model.padded_ffn // GROUP, (model.padded_hidden // GROUP) * _TILE
    gate, up = share.own, share.own + 4 * STRIP * GROUP
    tile = next_item(share.counter)
    while tile < tiles:
        first = layer * 2 * tiles + tile
        gate_scale, up_scale = (
            model.gate_up_scale + 4 * first * GROUP,
            model.gate_up_scale + 4 * (first + tiles) * GROUP,
        )
        for begin in range(share.first, share.past, STRIP):
            size = min(STRIP, share.past - begin)
            at, other = model.gate_up + first * tile_bytes, model.gate_up + (first + tiles) * tile_bytes
            _product_of_inputs(model, room, begin, size, at, at + share.stride * tile_bytes, gate)
            _product_of_inputs(model, room, begin, size, other, other + share.stride * tile_bytes, up)
            for r in range(size):
                group = (begin + r) * room.middle_groups + tile
                gate_quantize(
                    gate + 4 * GROUP * r,
                    up + 4 * GROUP * r,
                    gate_scale,
                    up_scale,
                    model.activation,
                    room.middle + GROUP * group,
                    room.middle_scales + 4 * group,
                    room.middle_starts + 4 * group,
                )
        tile = next_item(share.counter)
