"""What a step is told: a model, the step, and room to work in, as whole numbers and addresses.

Tuples of whole numbers compile in a tenth of the time that tuples of arrays take. They travel as arrays of their
fields, by address, too (`model_at` and its like read them). The caller keeps all arrays alive. Widths are padded to
multiples of 64 with zeros.
"""

from typing import NamedTuple

from numba import types

from kernels.cpu.simd import record_at


class Model(NamedTuple):
    """Sizes, then addresses. Packed tiles are uint8 [layers, tiles, groups * bytes of a group]; norms, biases and
    scales float32 [layers, width]; those that a model does not have are 0."""

    product: int  # matmul.product_tile
    unpack: int  # levels.unpack_tile
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    padded_head: int
    hidden: int
    padded_hidden: int
    padded_ffn: int
    vocab: int
    output_tiles: int
    qkv_group: int  # bytes of a group of 64 inputs in one tile: matmul.GROUP_BYTES or levels.GROUP_BYTES
    o_group: int
    gate_up_group: int
    down_group: int
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
    own: int  # bytes of each thread: | products | weights | head | bytes of a head | scores |
    own_bytes: int
    weights_at: int  # where in them: tiles that are kept as levels, in bytes
    head_at: int
    whole_at: int
    scores_at: int


model_at = record_at(Model, types.int64)
reals_at = record_at(Reals, types.float64)
step_at = record_at(Step, types.int64)
room_at = record_at(Room, types.int64)
