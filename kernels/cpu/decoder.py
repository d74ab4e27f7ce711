"""One step of a whole decoder as a single compiled function that several threads walk through together.

Between two barriers lies a region; its items are independent of each other and taken one by one. Each thread takes its
own share first, and then helps the others: of a step with many rows some rows, so that they stay in its core's cache,
else some of the columns:

    0  norm      some rows       residual row, what waits in room.y added -> norm -> int8 groups
    1  qkv       a head          its product for all rows; bias, norm, rotation; queries kept, keys and values to blocks
    2  attend    heads of a row  over its blocks -> int8 groups
    3  o         64 columns      product for all rows, added to the residual or, before a post norm, to room.y
    4  mlp_norm  some rows       as 0
    5  gate_up   64 columns      both products for all rows; activation -> int8 group
    6  down      64 columns      as 3
"""

from typing import Any, Final

import numpy as np
from numba import types

from kernels.cpu.attending import attention
from kernels.cpu.best import bests_at, forget_best, join_best, keep_best
from kernels.cpu.compiling import compiled, entry, merged
from kernels.cpu.matmul import GROUP, GROUP_BYTES
from kernels.cpu.norms import embeddings, norm_row, norms
from kernels.cpu.projections import STRIP, first_tile, gate_up, product_of_inputs, project, queries_keys_values
from kernels.cpu.records import model_at, reals_at, room_at, step_at
from kernels.cpu.simd import load_floats, store_floats
from kernels.cpu.team import Share, barrier, counter, next_item, span

REGIONS_PER_LAYER: Final = 7
# Numba compiles a function once for numbers and again for each number that it is called with: these are the former.
_NORM, _QKV, _ATTEND, _O, _MLP_NORM, _GATE_UP, _DOWN = map(np.int64, range(REGIONS_PER_LAYER))
_NONE: Final = np.int64(0)  # in place of an address
_ROWS_APART: Final = STRIP  # of a thread, at least, or its weights would be read for too few


@entry
def forward(thread: Any, threads: Any, board: Any, models: Any, numbers: Any, steps: Any, rooms: Any) -> None:
    """`room.x` = the residual of every row behind the last layer; all threads of a team call this together.

    All are addresses: of a Model, Reals, a Step and Room (records.py).
    """
    model, reals, step, room = model_at(models), reals_at(numbers), step_at(steps), room_at(rooms)
    parts = threads if step.rows >= _ROWS_APART * threads else 1
    pieces = threads // parts
    own = room.own + thread * room.own_bytes
    for layer in range(-1, model.layers + 1):
        for region in range(REGIONS_PER_LAYER):
            for turn in range(threads):
                number = (thread + turn) % threads
                at = counter(board, ((layer + 1) * REGIONS_PER_LAYER + region) * threads + number)
                part, piece = number % parts, number % pieces
                share = Share(at, step.rows * part // parts, step.rows * (part + 1) // parts, piece, pieces, own)
                _region(region, layer, share, model, reals, step, room)
            if region == _NORM or 0 <= layer < model.layers:
                barrier(board, threads)


@merged
def _region(region: Any, layer: Any, share: Any, model: Any, reals: Any, step: Any, room: Any) -> None:
    """Of the layer before the first, embeddings; of the one behind the last, what its norm has still to add."""
    if 0 <= layer < model.layers:
        _layer_region(region, layer, share, model, reals, step, room)
    elif region == _NORM and layer < 0:
        embeddings(share, model, reals, step, room)
    elif region == _NORM and model.mlp_post_norm:
        before = model.mlp_post_norm + 4 * (layer - 1) * model.padded_hidden
        norms(share, model, reals, before, _NONE, room)


@merged
def _layer_region(region: Any, layer: Any, share: Any, model: Any, reals: Any, step: Any, room: Any) -> None:
    """The parts of a layer in the order of the table above."""
    width = model.padded_hidden
    if region == _NORM:
        before = model.mlp_post_norm + 4 * (layer - 1) * width if layer and model.mlp_post_norm else _NONE
        norms(share, model, reals, before, model.attention_norm + 4 * layer * width, room)
    elif region == _QKV:
        queries_keys_values(share, layer, model, reals, step, room, _first_of(share, _O, layer, model))
    elif region == _ATTEND:
        attention(share, layer, model, step, room)
    elif region == _O:
        groups, scales = model.heads * model.padded_head // GROUP, model.o_scale + 4 * layer * width
        behind = _first_of(share, _GATE_UP, layer, model)
        project(share, _weights(_O, layer, model), scales, groups, model.o_group, model, room, behind)
    elif region == _MLP_NORM:
        before = model.attention_post_norm + 4 * layer * width if model.attention_post_norm else _NONE
        norms(share, model, reals, before, model.mlp_norm + 4 * layer * width, room)
    elif region == _GATE_UP:
        gate_up(share, layer, model, room, _first_of(share, _DOWN, layer, model))
    else:
        groups, scales = model.padded_ffn // GROUP, model.down_scale + 4 * layer * width
        behind = _first_of(share, _QKV, layer + 1, model)
        project(share, _weights(_DOWN, layer, model), scales, groups, model.down_group, model, room, behind)


@compiled
def _weights(region: Any, layer: Any, model: Any) -> Any:
    """Where a layer's weights of a region of products begin; behind the last layer those of the output layer."""
    if layer == model.layers:
        return model.output
    hidden, behind_attention = model.padded_hidden // GROUP, model.heads * model.padded_head // GROUP
    if region == _QKV:
        return model.qkv + layer * (model.heads + 2 * model.kv_heads) * _head_bytes(model)
    if region == _O:
        return model.o + layer * hidden * behind_attention * model.o_group
    middle = model.padded_ffn // GROUP
    if region == _GATE_UP:
        return model.gate_up + layer * 2 * middle * hidden * model.gate_up_group
    return model.down + layer * hidden * middle * model.down_group


@compiled
def _head_bytes(model: Any) -> Any:
    return model.padded_head // GROUP * (model.padded_hidden // GROUP) * model.qkv_group


@compiled
def _first_of(share: Any, region: Any, layer: Any, model: Any) -> Any:
    """Where this thread will begin to read in a region of products."""
    tiles, hidden, middle = _weights(region, layer, model), model.padded_hidden // GROUP, model.padded_ffn // GROUP
    if layer == model.layers:
        return first_tile(share, tiles, model.output_tiles, hidden * GROUP_BYTES)
    if region == _QKV:
        return first_tile(share, tiles, model.heads + 2 * model.kv_heads, _head_bytes(model))
    if region == _O:
        return first_tile(share, tiles, hidden, model.heads * model.padded_head // GROUP * model.o_group)
    if region == _GATE_UP:
        return first_tile(share, tiles, middle, hidden * model.gate_up_group)
    return first_tile(share, tiles, hidden, middle * model.down_group)


@entry
def logits(
    thread: Any, threads: Any, board: Any, models: Any, numbers: Any, rows: Any, hidden: Any, rooms: Any, out: Any
) -> None:
    """hidden float32 [rows, padded hidden] -> out float32 [rows, 64 * output_tiles]; all threads call this together."""
    model, reals, room = model_at(models), reals_at(numbers), room_at(rooms)
    _final_norms(threads, board, model, reals, rows, hidden, room)
    own = room.own + thread * room.own_bytes
    for turn in range(threads):
        number = (thread + turn) % threads
        _output_tiles(Share(counter(board, 1 + number), 0, rows, number, threads, own), model, room, out)
    barrier(board, threads)


@entry
def best_tokens(
    thread: Any, threads: Any, board: Any, models: Any, numbers: Any, rows: Any, hidden: Any, rooms: Any, bests: Any
) -> None:
    """As `logits`, but keeps of each row only its best, in Bests at an address (best.py)."""
    model, reals, room, best = model_at(models), reals_at(numbers), room_at(rooms), bests_at(bests)
    _final_norms(threads, board, model, reals, rows, hidden, room)
    own = room.own + thread * room.own_bytes
    forget_best(thread, rows, best)
    for turn in range(threads):
        number = (thread + turn) % threads
        share = Share(counter(board, 1 + number), 0, rows, number, threads, own)
        _best_of_tiles(thread, share, model, room, best)
    barrier(board, threads)
    if thread == 0:
        join_best(threads, rows, best)


@compiled
def _final_norms(threads: Any, board: Any, model: Any, reals: Any, rows: Any, hidden: Any, room: Any) -> None:
    row = next_item(counter(board, 0))
    while row < rows:
        norm_row(model, reals, hidden + 4 * row * model.padded_hidden, model.final_norm, row, room)
        row = next_item(counter(board, 0))
    barrier(board, threads)


@compiled
def _product_of_output(share: Any, tile: Any, begin: Any, size: Any, model: Any, room: Any) -> None:
    """64 outputs of some rows, before their scales, to the thread's own memory."""
    tile_bytes = model.padded_hidden // GROUP * GROUP_BYTES
    at = model.output + tile * tile_bytes
    asked = (at + tile_bytes, at + tile_bytes + 3 * (tile_bytes // 4))
    product_of_inputs(model, room, begin, size, at, asked, share.own)


@compiled
def _best_of_tiles(thread: Any, share: Any, model: Any, room: Any, best: Any) -> None:
    begin_tile, end = span(share, model.output_tiles)
    tile = begin_tile + next_item(share.counter)
    while tile < end:
        count = min(GROUP, model.vocab - GROUP * tile)
        for begin in range(0, share.past, STRIP):
            size = min(STRIP, share.past - begin)
            _product_of_output(share, tile, begin, size, model, room)
            for r in range(size):
                product, scale = share.own + 4 * GROUP * r, model.output_scale + 4 * tile * GROUP
                keep_best(thread * share.past + begin + r, GROUP * tile, count, product, scale, best)
        tile = begin_tile + next_item(share.counter)


@compiled
def _output_tiles(share: Any, model: Any, room: Any, out: Any) -> None:
    """64 logits of every row."""
    begin_tile, end = span(share, model.output_tiles)
    tile = begin_tile + next_item(share.counter)
    while tile < end:
        scale = model.output_scale + 4 * tile * GROUP
        for begin in range(0, share.past, STRIP):
            size = min(STRIP, share.past - begin)
            _product_of_output(share, tile, begin, size, model, room)
            for r in range(size):
                to = out + 4 * ((begin + r) * model.output_tiles + tile) * GROUP
                for i in range(0, 4 * GROUP, 64):
                    store_floats(to + i, load_floats(share.own + 4 * GROUP * r + i) * load_floats(scale + i))
        tile = begin_tile + next_item(share.counter)


def compile_output() -> None:
    """`logits` and `best_tokens`, where they are not yet, for the numbers that all their arguments are."""
    for function in (logits, best_tokens):
        function.compile((types.int64,) * 9)
