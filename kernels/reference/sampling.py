"""Chooses a token for each row of logits, row after row in plain torch; the order of steps is engine/sampler.py's.

    adjust   bias, repetition, frequency, presence; masked and barred tokens have no score
    greedy   temperature 0: the best score, the lowest id among equals
    gap      (score - best) / temperature
    top-k    the k best scores
    top-p    the fewest of those, best first, whose weights reach their part of all of them
    min-p    gaps of at least log(min_p)
    draw     the highest gap + noise, the lowest id among equals

Weights are e^gap on a grid of 2^-40, so that their sums are sums of whole numbers and have no order. Everything else is
float32 made of correctly rounded operations, where the host's sampler is float64: a draw or a border that the two judge
differently is one where they see less than about 1e-5 between two tokens.
"""

from typing import Final

import torch
from torch import Tensor

from kernels.reference.activation import LOG2_E, exp2_
from kernels.reference.gumbel import gumbel, log
from kernels.reference.sampling_table import LOWEST_LOGPROB, MOST_ALTERNATIVES, NO_TOKEN, Sampled, SamplingTable

GRID: Final = float(1 << 40)


def sample(logits: Tensor, table: SamplingTable, scores: Tensor, sampled: Sampled) -> None:
    for row in range(len(logits)):
        raw = logits[row].float()
        scores[row] = _adjusted(raw, table, row)
        token_id = _choose(scores[row], table, row) if raw.isfinite().all() else NO_TOKEN
        sampled.token_ids[row] = token_id
        if token_id == NO_TOKEN:
            continue
        if int(table.history_slot[row]) >= 0:
            table.history[int(table.history_slot[row]), token_id] += 2
        if int(table.alternatives[row]) >= 0:
            _explain(raw, token_id, int(table.alternatives[row]), row, sampled)


def _adjusted(raw: Tensor, table: SamplingTable, row: int) -> Tensor:
    scores = raw.clone()
    biased = slice(int(table.bias_offsets[row]), int(table.bias_offsets[row + 1]))
    scores[table.bias_ids[biased].long()] += table.bias_values[biased]
    slot = int(table.history_slot[row])
    if slot >= 0:
        history = table.history[slot]
        penalty, counts = table.repetition_penalty[row], history // 2
        scores = torch.where(history > 0, torch.where(scores > 0, scores / penalty, scores * penalty), scores)
        taken = table.frequency_penalty[row] * counts.float() + table.presence_penalty[row]
        scores = torch.where(counts > 0, scores - taken, scores)
    slot = int(table.mask_slot[row])
    if slot >= 0:
        ids = torch.arange(len(raw), device=raw.device)
        scores[(table.mask[slot][ids // 32] >> (ids % 32)) & 1 == 0] = -torch.inf
    barred = slice(int(table.barred_offsets[row]), int(table.barred_offsets[row + 1]))
    scores[table.barred_ids[barred].long()] = -torch.inf
    return scores


def _choose(scores: Tensor, table: SamplingTable, row: int) -> int:
    ranked = scores.argsort(descending=True, stable=True)  # equal scores by lowest id
    best = scores[ranked[0]]
    if not best.isfinite():
        return NO_TOKEN
    temperature = table.temperature[row]
    if temperature == 0:
        return int(ranked[0])
    gaps = (scores - best) / temperature
    top_k = int(table.top_k[row])
    kept = ranked[:top_k] if top_k > 0 else ranked
    if table.top_p[row] < 1.0:
        mass = weights(gaps[kept]).cumsum(0)
        wanted = (table.top_p[row].double() * mass[-1].double()).ceil().long().clamp(max=mass[-1])
        kept = kept[: int(torch.searchsorted(mass, wanted)) + 1]
    kept = kept.sort().values
    if table.min_p[row] > 0:
        kept = kept[gaps[kept] >= log(table.min_p[row])]
    totals = gaps[kept] + gumbel(int(table.noise_key[row]), int(table.offset[row]), kept)
    return int(kept[totals.argmax()])


def weights(gaps: Tensor) -> Tensor:
    """e^gap for gaps of at most 0, as whole multiples of 2^-40, rounded down.  # int64"""
    return (exp2_(gaps * LOG2_E) * GRID).long()


def _explain(raw: Tensor, token_id: int, alternatives: int, row: int, sampled: Sampled) -> None:
    gaps = raw - raw.max()
    divisor = log(weights(gaps).sum().float() * (1.0 / GRID))
    logprobs = (gaps - divisor).clamp(min=LOWEST_LOGPROB)
    sampled.logprobs[row] = logprobs[token_id]
    top = raw.argsort(descending=True, stable=True)[:alternatives]
    sampled.top_ids[row] = -1
    sampled.top_ids[row, : len(top)] = top.int()
    sampled.top_logprobs[row, :MOST_ALTERNATIVES] = 0.0
    sampled.top_logprobs[row, : len(top)] = logprobs[top]
