"""The regions of a step that take whole rows: embeddings, and norms quantised for the next product."""

from typing import Any, Final

import numpy as np

from kernels.cpu.compiling import compiled, merged
from kernels.cpu.matmul import GROUP, GROUP_BYTES
from kernels.cpu.rows import add_norm, norm_quantize
from kernels.cpu.simd import load_byte, load_float, load_index, store_float
from kernels.cpu.team import next_item, span

_ROWS_AT_ONCE: Final = 4  # one row alone is soon done


@merged
def embeddings(share: Any, model: Any, reals: Any, step: Any, room: Any) -> None:
    """The residual of every row = its token's embedding."""
    begin, end = span(share, share.past - share.first)
    row = begin + next_item(share.counter)
    while row < end:
        at = share.first + row
        _embed(model, reals, load_index(step.token_ids + 8 * at), room.x + 4 * at * model.padded_hidden)
        row = begin + next_item(share.counter)


@merged
def _embed(model: Any, reals: Any, token: Any, x: Any) -> None:
    """One row of the packed vocabulary, back in order."""
    at = model.embedding + (token // GROUP) * (model.padded_hidden // GROUP) * GROUP_BYTES + 4 * (token % GROUP)
    scale = load_float(model.embedding_scale + 4 * token)
    factor = np.float32(reals.embedding_scale)
    for i in range(model.padded_hidden):
        whole = (load_byte(at + (i // 4) * 4 * GROUP + i % 4) & 255) - 128
        store_float(x + 4 * i, np.float32(whole) * scale * factor)


@compiled
def norms(share: Any, model: Any, reals: Any, before: Any, weight: Any, room: Any) -> None:
    """Every row: x += norm(y) by the weights `before`, then its norm by `weight` quantised; each where it is not 0."""
    rows = share.past - share.first
    begin, end = span(share, -(-rows // _ROWS_AT_ONCE))
    item = begin + next_item(share.counter)
    while item < end:
        first = share.first + item * _ROWS_AT_ONCE
        for row in range(first, min(first + _ROWS_AT_ONCE, share.past)):
            x, y = room.x + 4 * row * model.padded_hidden, room.y + 4 * row * model.padded_hidden
            if before:
                add_norm(x, y, before, model.hidden, model.padded_hidden, reals.eps)
            if weight:
                norm_row(model, reals, x, weight, row, room)
        item = begin + next_item(share.counter)


@merged
def norm_row(model: Any, reals: Any, x: Any, weight: Any, row: Any, room: Any) -> None:
    """A row at `x`, its norm quantised as row `row` of the next product's inputs."""
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
