"""Rows to sample from, written as a person would, and the tables that a device reads; knows no sampler."""

from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from torch import Tensor

from engine.noise import stream_key
from kernels.reference.sampling_table import MOST_ALTERNATIVES, Sampled, SamplingTable

VOCAB: Final = 150


@dataclass(frozen=True, slots=True)
class Row:
    """One row's parameters, as a person would write them."""

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition: float = 1.0
    frequency: float = 0.0
    presence: float = 0.0
    seed: int = 0
    offset: int = 0
    alternatives: int = -1
    prompt: tuple[int, ...] = ()
    output: tuple[int, ...] = ()
    allowed: tuple[int, ...] | None = None
    bias: tuple[tuple[int, float], ...] = ()
    barred: tuple[int, ...] = ()


def _signed(bits: int) -> int:
    return bits - (1 << 64) if bits >> 63 else bits


def table_of(rows: list[Row], vocab: int = VOCAB) -> SamplingTable:
    count = len(rows)
    history, mask = torch.zeros(count, vocab, dtype=torch.int32), torch.zeros(count, -(-vocab // 32), dtype=torch.int32)
    for index, row in enumerate(rows):
        history[index, list(row.prompt)] |= 1
        for token_id in row.output:
            history[index, token_id] += 2
        words = np.zeros(mask.shape[1], dtype=np.uint32)
        for token_id in row.allowed or ():
            words[token_id // 32] |= np.uint32(1 << token_id % 32)
        mask[index] = torch.from_numpy(words.view(np.int32))

    def floats(*values: float) -> Tensor:
        return torch.tensor(values)

    def integers(*values: int) -> Tensor:
        return torch.tensor(values, dtype=torch.int32)

    def offsets(*lengths: int) -> Tensor:
        return torch.tensor([0, *lengths], dtype=torch.int32).cumsum(0).int()

    return SamplingTable(
        temperature=floats(*(row.temperature for row in rows)),
        top_k=integers(*(row.top_k for row in rows)),
        top_p=floats(*(row.top_p for row in rows)),
        min_p=floats(*(row.min_p for row in rows)),
        repetition_penalty=floats(*(row.repetition for row in rows)),
        frequency_penalty=floats(*(row.frequency for row in rows)),
        presence_penalty=floats(*(row.presence for row in rows)),
        noise_key=torch.tensor([_signed(stream_key(row.seed, 0)) for row in rows]),
        offset=torch.tensor([row.offset for row in rows]),
        alternatives=integers(*(row.alternatives for row in rows)),
        history_slot=integers(*(i if row.prompt or row.output else -1 for i, row in enumerate(rows))),
        history=history,
        mask_slot=integers(*(-1 if row.allowed is None else i for i, row in enumerate(rows))),
        mask=mask,
        bias_offsets=offsets(*(len(row.bias) for row in rows)),
        bias_ids=integers(*(token_id for row in rows for token_id, _ in row.bias)),
        bias_values=floats(*(value for row in rows for _, value in row.bias)),
        barred_offsets=offsets(*(len(row.barred) for row in rows)),
        barred_ids=integers(*(token_id for row in rows for token_id in row.barred)),
    )


def buffers(rows: int, vocab: int) -> tuple[Tensor, Sampled]:
    """Poisoned, so that what is not written shows."""
    return torch.full((rows, vocab), 7.0), Sampled(
        token_ids=torch.full((rows,), 99),
        logprobs=torch.full((rows,), 99.0),
        top_ids=torch.full((rows, MOST_ALTERNATIVES), 99, dtype=torch.int32),
        top_logprobs=torch.full((rows, MOST_ALTERNATIVES), 99.0),
    )


# Every step at least once, and twice where two of them meet.
ROWS: Final = [
    Row(temperature=0.0, alternatives=3, bias=((5, 2.0), (149, -3.0)), barred=(149, 7), prompt=(1, 2), repetition=1.3),
    Row(temperature=0.7, top_k=5, alternatives=20, output=(3, 3, 64), frequency=0.5, presence=0.2, seed=1 << 63),
    Row(temperature=1.5, top_p=0.8, min_p=0.05, offset=1000, seed=3, allowed=tuple(range(0, 150, 2)), alternatives=0),
    Row(temperature=1.0, top_k=60, top_p=0.9, seed=4, prompt=(10,), output=(11,), repetition=0.8),
]
