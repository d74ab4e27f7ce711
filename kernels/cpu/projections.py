"""The regions of a step that are products: queries, keys and values; gate and up; and those that end in the residual.

An item is some columns for all rows of a share, STRIP rows at a time. Weights that are kept as levels are made into
bytes once for all of these rows. Memory is the slowest part where rows are few, so it is kept busy: while one tile is
unpacked and multiplied it is asked for the next one, behind the last for the first of the region that comes (`behind`).
"""

from typing import Any, Final

import numpy as np

from kernels.cpu.attention import BLOCK
from kernels.cpu.compiling import compiled, merged
from kernels.cpu.heads import gather_head, keep_key, keep_query, keep_value, norm_head, rotate_head
from kernels.cpu.levels import ASKED_FOR, call_unpack
from kernels.cpu.matmul import GROUP, GROUP_BYTES, call_product
from kernels.cpu.rows import gate_quantize
from kernels.cpu.simd import load_floats, load_index, store_floats
from kernels.cpu.team import next_item, span

STRIP: Final = 48
"""Rows whose products stay in a core's nearest cache until they are used."""
_OUTPUTS_BYTES: Final = 4 * GROUP  # of one row's product with a tile


@compiled
def first_tile(share: Any, tiles: Any, items: Any, item_bytes: Any) -> Any:
    """Where the weights of a region's first item begin that is in this share, of so many that begin at `tiles`."""
    return tiles + items * share.piece // share.pieces * item_bytes


@merged
def _in_bytes(model: Any, tiles: Any, groups: Any, group_bytes: Any, scratch: Any, following: Any) -> Any:
    """Where the int8 tiles of so many groups are that lie at `tiles`: there, or at `scratch`, made of their levels."""
    if group_bytes == GROUP_BYTES:
        return tiles
    call_unpack(model.unpack, tiles, scratch, groups, following)
    return scratch


@merged
def _asked(following: Any, groups: Any, group_bytes: Any) -> Any:
    """From where to where a product asks memory for what follows: all of it, or what unpacking has left."""
    if group_bytes == GROUP_BYTES:
        return following, following + 3 * (groups * GROUP_BYTES // 4)
    rest = following + groups * ASKED_FOR
    return rest, rest


@compiled
def product_of_inputs(model: Any, room: Any, begin: Any, size: Any, tile: Any, asked: Any, out: Any) -> None:
    """Normed rows begin to begin + size times one tile of bytes -> float32 [size, 64] at `out`."""
    groups = model.padded_hidden // GROUP
    beside = 4 * begin * groups
    x, scales, starts = (
        room.inputs + begin * model.padded_hidden,
        room.input_scales + beside,
        room.input_starts + beside,
    )
    call_product(model.product, x, scales, starts, tile, out, size, groups, groups, asked[0], asked[1])


@compiled
def queries_keys_values(share: Any, layer: Any, model: Any, reals: Any, step: Any, room: Any, behind: Any) -> None:
    """One query, key or value head of every row: queries into `room`, keys and values into their blocks."""
    heads, per_head, groups = model.heads + 2 * model.kv_heads, model.padded_head // GROUP, model.padded_hidden // GROUP
    own, tile_bytes = share.own, groups * GROUP_BYTES
    begin_head, end = span(share, heads)
    head = begin_head + next_item(share.counter)
    while head < end:
        column = (layer * heads + head) * model.padded_head
        tiles = model.qkv + column // GROUP * groups * model.qkv_group
        following = tiles + per_head * groups * model.qkv_group if head + 1 < end else behind
        ready = _in_bytes(model, tiles, per_head * groups, model.qkv_group, own + room.weights_at, following)
        asked = _asked(following, per_head * groups, model.qkv_group)
        bias = model.qkv_bias + 4 * column if model.qkv_bias else 0
        for begin in range(share.first, share.past, STRIP):
            size = min(STRIP, share.past - begin)
            for part in range(per_head):
                out = own + part * STRIP * _OUTPUTS_BYTES
                product_of_inputs(model, room, begin, size, ready + part * tile_bytes, asked, out)
            for r in range(size):
                at, to = own + r * _OUTPUTS_BYTES, own + room.head_at
                gather_head(at, STRIP * _OUTPUTS_BYTES, model.qkv_scale + 4 * column, bias, model.padded_head, to)
                _keep_head(own, layer, head, begin + r, model, reals, step, room)
        head = begin_head + next_item(share.counter)


@merged
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


@compiled
def project(
    share: Any, tiles: Any, scales: Any, groups: Any, group_bytes: Any, model: Any, room: Any, behind: Any
) -> None:
    """64 columns of the product behind attention or the MLP's middle, to the residual or to where its norm is."""
    own = share.own
    begin_tile, end = span(share, model.padded_hidden // GROUP)
    tile = begin_tile + next_item(share.counter)
    while tile < end:
        at = tiles + tile * groups * group_bytes
        following = at + groups * group_bytes if tile + 1 < end else behind
        ready = _in_bytes(model, at, groups, group_bytes, own + room.weights_at, following)
        asked = _asked(following, groups, group_bytes)
        for begin in range(share.first, share.past, STRIP):
            size = min(STRIP, share.past - begin)
            group = begin * room.middle_groups
            x, beside, starts = (
                room.middle + GROUP * group,
                room.middle_scales + 4 * group,
                room.middle_starts + 4 * group,
            )
            call_product(
                model.product, x, beside, starts, ready, own, size, groups, room.middle_groups, asked[0], asked[1]
            )
            for r in range(size):
                to = 4 * ((begin + r) * model.padded_hidden + tile * GROUP)
                _add_product(own + r * _OUTPUTS_BYTES, scales + 4 * tile * GROUP, to, model, room)
        tile = begin_tile + next_item(share.counter)


@merged
def _add_product(product: Any, scale: Any, to: Any, model: Any, room: Any) -> None:
    """A row's 64 columns times their weights' scales, `to` bytes into the residual or into where its norm is."""
    for i in range(0, _OUTPUTS_BYTES, 64):
        made = load_floats(product + i) * load_floats(scale + i)
        if model.attention_post_norm:
            store_floats(room.y + to + i, made)
        else:
            store_floats(room.x + to + i, load_floats(room.x + to + i) + made)


@compiled
def gate_up(share: Any, layer: Any, model: Any, room: Any, behind: Any) -> None:
    """64 columns of the MLP's middle for every row, quantised as one group of the next product."""
    tiles, groups, own = model.padded_ffn // GROUP, model.padded_hidden // GROUP, share.own
    tile_bytes, scratch = groups * model.gate_up_group, own + room.weights_at
    begin_tile, end = span(share, tiles)
    tile = begin_tile + next_item(share.counter)
    while tile < end:
        gate = model.gate_up + (layer * 2 * tiles + tile) * tile_bytes
        up = gate + tiles * tile_bytes
        following, following_up = gate + tile_bytes, up + tile_bytes
        if tile + 1 == end:
            following, following_up = behind, behind + tile_bytes
        ready = _in_bytes(model, gate, groups, model.gate_up_group, scratch, following)
        asked = _asked(following, groups, model.gate_up_group)
        ready_up = _in_bytes(model, up, groups, model.gate_up_group, scratch + groups * GROUP_BYTES, following_up)
        asked_up = _asked(following_up, groups, model.gate_up_group)
        for begin in range(share.first, share.past, STRIP):
            size = min(STRIP, share.past - begin)
            product_of_inputs(model, room, begin, size, ready, asked, own)
            product_of_inputs(model, room, begin, size, ready_up, asked_up, own + STRIP * _OUTPUTS_BYTES)
            for r in range(size):
                _activate(own + r * _OUTPUTS_BYTES, layer, tile, begin + r, model, room)
        tile = begin_tile + next_item(share.counter)


@merged
def _activate(gate: Any, layer: Any, tile: Any, row: Any, model: Any, room: Any) -> None:
    """A row's columns of gate, and those of up behind the strip, as one group of its middle."""
    tiles, group = model.padded_ffn // GROUP, row * room.middle_groups + tile
    scale = model.gate_up_scale + (layer * 2 * tiles + tile) * _OUTPUTS_BYTES
    gate_quantize(
        gate,
        gate + STRIP * _OUTPUTS_BYTES,
        scale,
        scale + tiles * _OUTPUTS_BYTES,
        model.activation,
        room.middle + GROUP * group,
        room.middle_scales + 4 * group,
        room.middle_starts + 4 * group,
    )
