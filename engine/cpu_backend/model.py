"""A decoder whose step is kernels/cpu's one function; knows arrays and the team of threads, no request.

Working memory grows to the largest step it has seen and stays.
"""

from collections.abc import Mapping
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from engine.batch import Batch, PageLayout
from engine.block_pool import NULL_PAGE
from engine.cpu_backend.memory import address, aligned
from engine.cpu_backend.packing import GROUP, Arrays, padded
from engine.cpu_backend.room import BestMemory, WorkingMemory
from engine.cpu_backend.team import Team
from engine.models.shape import ModelShape, RotaryShape
from kernels.cpu import rows
from kernels.cpu.attention import BLOCK
from kernels.cpu.decoder import REGIONS_PER_LAYER, best_tokens, forward, logits
from kernels.cpu.levels import unpack_tile
from kernels.cpu.matmul import product_tile
from kernels.cpu.records import Model, Reals, Step

Ids: TypeAlias = NDArray[np.int64]

_ACTIVATIONS: Final = {"silu": rows.SILU, "gelu_tanh": rows.GELU_TANH}
_LINEAR: Final = ("qkv", "o", "gate_up", "down")
_MANY: Final = 24  # rows from which on products take longer than fetching bytes, and unpacking levels gains nothing
_LOG2_E: Final = float(np.log2(np.e))


class CpuDecoder:
    """`weights` are packed (packing.py)."""

    def __init__(
        self,
        weights: Arrays,
        shape: ModelShape,
        pages: PageLayout,
        max_context: int,
        threads: int,
        identity: Mapping[str, str],
    ) -> None:
        self.vocab_size = shape.vocab_size
        self.identity = identity
        self._shape = shape
        self._blocks_per_page = pages.size // BLOCK
        blocks = pages.count * self._blocks_per_page
        self._arrays = {**weights, **_rotations(shape, max_context), **_blocks(shape, blocks)}
        few, many = (_model(shape, self._arrays, blocks, levels=levels) for levels in (True, False))
        reals = Reals(shape.rms_eps, shape.score_scale * _LOG2_E, shape.embedding_scale)
        self._padded_hidden = few.padded_hidden
        self._told = (
            np.array(few, dtype=np.int64),
            np.array(many, dtype=np.int64),
            np.array(reals, dtype=np.float64),
        )
        self._few, self._many, self._reals = map(address, self._told)
        self._logits = np.empty((0, few.output_tiles * GROUP), dtype=np.float32)
        self._memory = WorkingMemory(shape, max_context, threads)
        self._bests = BestMemory(threads)
        self._team = Team(threads, (shape.num_layers + 2) * REGIONS_PER_LAYER)

    def forward(self, batch: Batch) -> NDArray[np.float32]:
        """The hidden state of every row behind the last layer, valid until the next step.  # [rows, hidden]"""
        return self._forward(batch.token_ids, batch.positions, batch.row_chunk, self._block_tables(batch.tables))

    def warm(self) -> None:
        """Compiles whatever is not, by a row of its own in the null page."""
        zero = np.zeros(1, dtype=np.int64)
        hidden = self._forward(zero, zero, zero, np.full((1, 1), NULL_PAGE))
        self.logits(hidden)
        self.best_tokens(hidden)

    def logits(self, hidden: NDArray[np.float32]) -> NDArray[np.float32]:
        """hidden [rows, hidden] -> [rows, vocab], valid until the next call."""
        room, x = self._memory.for_rows(len(hidden)), self._padded(hidden)
        if len(hidden) > len(self._logits):
            self._logits = np.empty((len(hidden), self._logits.shape[1]), dtype=np.float32)
        self._team.run(logits, self._few, self._reals, len(hidden), address(x), room, address(self._logits))
        return self._logits[: len(hidden), : self.vocab_size]

    def best_tokens(self, hidden: NDArray[np.float32]) -> NDArray[np.int64]:
        """hidden [rows, hidden] -> [rows]: the lowest id of each row's largest logit, or NOT_FINITE."""
        room, x = self._memory.for_rows(len(hidden)), self._padded(hidden)
        told, tokens = self._bests.for_rows(len(hidden))
        self._team.run(best_tokens, self._few, self._reals, len(hidden), address(x), room, told)
        return tokens[: len(hidden)]

    def _padded(self, hidden: NDArray[np.float32]) -> NDArray[np.float32]:
        missing = self._padded_hidden - hidden.shape[1]
        return np.pad(hidden, ((0, 0), (0, missing))) if missing else np.ascontiguousarray(hidden)

    def _forward(self, token_ids: Ids, positions: Ids, sequences: Ids, tables: Ids) -> NDArray[np.float32]:
        room = self._memory.for_rows(len(token_ids))
        step = Step(
            rows=len(token_ids),
            token_ids=address(token_ids),
            positions=address(positions),
            sequences=address(sequences),
            tables=address(tables),
            table=tables.shape[1],
        )
        told = np.array(step, dtype=np.int64)
        model = self._few if step.rows < _MANY else self._many
        self._team.run(forward, model, self._reals, address(told), room)
        return self._memory.x[: step.rows, : self._shape.hidden_size]

    def _block_tables(self, tables: NDArray[np.int64]) -> NDArray[np.int64]:
        """Pages as blocks of 16 positions."""
        if self._blocks_per_page == 1:
            return tables
        first = tables[:, :, None] * self._blocks_per_page
        return (first + np.arange(self._blocks_per_page)).reshape(len(tables), -1)


def _model(shape: ModelShape, arrays: Arrays, blocks: int, *, levels: bool) -> Model:
    """Sizes and addresses; an array without values has none. Weights that are kept both ways are taken as `levels` or
    as bytes."""
    assert product_tile.address is not None
    assert unpack_tile.address is not None
    linear = {name: _kept(arrays, name, levels=levels) for name in _LINEAR}
    kept = {name: values for name, values in arrays.items() if not name.endswith("_levels")} | linear
    places = {name: address(values) if values.size else 0 for name, values in kept.items()}
    hidden = padded(shape.hidden_size)
    tied = {"output": places["embedding"], "output_scale": places["embedding_scale"]}
    return Model(
        product=product_tile.address,
        unpack=unpack_tile.address,
        layers=shape.num_layers,
        heads=shape.num_heads,
        kv_heads=shape.num_kv_heads,
        head_dim=shape.head_dim,
        padded_head=padded(shape.head_dim),
        hidden=shape.hidden_size,
        padded_hidden=hidden,
        padded_ffn=padded(shape.ffn_size),
        vocab=shape.vocab_size,
        output_tiles=padded(shape.vocab_size) // GROUP,
        activation=_ACTIVATIONS[shape.activation],
        blocks=blocks,
        qkv_group=_group_bytes(linear["qkv"], hidden),
        o_group=_group_bytes(linear["o"], shape.num_heads * padded(shape.head_dim)),
        gate_up_group=_group_bytes(linear["gate_up"], hidden),
        down_group=_group_bytes(linear["down"], padded(shape.ffn_size)),
        **(tied | places),
    )


def _kept(arrays: Arrays, name: str, *, levels: bool) -> NDArray[np.generic]:
    """An array of tiles in the way that is wanted, or in the only one there is."""
    wanted = (f"{name}_levels", name) if levels else (name, f"{name}_levels")
    return next(arrays[each] for each in wanted if each in arrays)


def _group_bytes(tiles: NDArray[np.generic], inputs: int) -> int:
    """Of a group of 64 inputs in one tile, by which kernels/cpu tells what is kept as levels."""
    return int(tiles.shape[-1]) * GROUP // inputs


def _rotations(shape: ModelShape, positions: int) -> Arrays:
    """Cosines and sines [rotaries, positions, head_dim / 2], rounded from float64, and which of them a layer uses."""
    half, count = shape.head_dim // 2, len(shape.rotaries)
    frequencies = np.array([_frequencies(rotary, half) for rotary in shape.rotaries])
    cos, sin = aligned((count, positions, half), np.float32), aligned((count, positions, half), np.float32)
    for start in range(0, positions, 4096):  # float64 angles of a long context would be a large array
        angles = np.arange(start, min(start + 4096, positions))[None, :, None] * frequencies[:, None, :]
        cos[:, start : start + 4096], sin[:, start : start + 4096] = np.cos(angles), np.sin(angles)
    return {
        "cos": cos,
        "sin": sin,
        "rotary": np.array(shape.layer_rotary, dtype=np.int64) * cos[0].nbytes,
        "window": np.array([window or 0 for window in shape.layer_windows], dtype=np.int64),
    }


def _frequencies(rotary: RotaryShape, half: int) -> NDArray[np.float64]:
    frequencies = np.float64(rotary.theta) ** (-np.arange(half) / half)
    return frequencies if rotary.factors is None else frequencies / np.array(rotary.factors)


def _blocks(shape: ModelShape, count: int) -> Arrays:
    """Keys and values of all layers, in blocks of 16 positions."""
    where, slots = (shape.num_layers, count, shape.num_kv_heads), BLOCK * padded(shape.head_dim)
    return {
        "keys": aligned((*where, slots), np.uint8),
        "key_scales": aligned((*where, BLOCK), np.float32),
        "values": aligned((*where, slots), np.int8),
        "value_scales": aligned((*where, BLOCK), np.float32),
    }
